"""XLA's compilations: counted, done before the first step, and forbidden after it (JAX)."""

from jax.profiler import TraceAnnotation

from multimodal_pad.compiling.batch_sizes import fit_batch_sizes
from multimodal_pad.compiling.cache import use_compilation_cache
from multimodal_pad.compiling.calibration import Calibration, calibrate, typical_shapes
from multimodal_pad.compiling.guard import CompileGuard, forbid_compiles
from multimodal_pad.compiling.log import CompileCounts, CompileLog
from multimodal_pad.compiling.options import CompilerOptions, default_options, default_threads
from multimodal_pad.compiling.policy_times import PolicyTime, PolicyTimes, time_policies
from multimodal_pad.compiling.run_planning import plan_run
from multimodal_pad.compiling.table import CompiledStep, StepTable, batch_struct, device_bytes
from multimodal_pad.compiling.warming import warm_up, warm_up_all
from multimodal_pad.spans import name_spans_by

# So that a profile names the data side's work, which imports no JAX.
name_spans_by(TraceAnnotation, TraceAnnotation.is_enabled)

__all__ = [
    "Calibration",
    "CompileCounts",
    "CompileGuard",
    "CompileLog",
    "CompiledStep",
    "CompilerOptions",
    "PolicyTime",
    "PolicyTimes",
    "StepTable",
    "batch_struct",
    "calibrate",
    "default_options",
    "default_threads",
    "device_bytes",
    "fit_batch_sizes",
    "forbid_compiles",
    "plan_run",
    "time_policies",
    "typical_shapes",
    "use_compilation_cache",
    "warm_up",
    "warm_up_all",
]
