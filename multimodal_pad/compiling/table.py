"""One executable per batch shape, and an error or a warning for a batch that has none."""

from __future__ import annotations

import hashlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from multimodal_pad.compiling.events import report_shape
from multimodal_pad.compiling.mismatch import explain_mismatch
from multimodal_pad.compiling.options import CompilerOptions, OptionSet
from multimodal_pad.errors import PaddingError, PlanWarning, StepMismatchError, UnplannedShapeError
from multimodal_pad.layouts.layout import Batch, BatchShape
from multimodal_pad.text_table import text_table


@dataclass(frozen=True)
class CompiledStep:
    """One executable of a :class:`StepTable`.

    Attributes:
        call: ``(state, batch) -> result``.
        seconds: tracing, lowering and compiling, on the clock, also where threads share the cores.
        device_bytes: argument + output + temporary - aliased bytes of XLA's memory analysis, or
            None where the backend gives none.

    >>> from multimodal_pad import pad_samples
    >>> def total(state, batch):
    ...     return state + batch.features["text"].sum()
    >>> batch = pad_samples([{"text": np.array([2, 3])}])
    >>> step = StepTable(total).compile(np.float32(1), batch)
    >>> float(step.call(np.float32(1), batch)), step.seconds > 0
    (6.0, True)
    """

    call: Callable[[Any, Any], Any]
    seconds: float
    device_bytes: int | None


class StepTable:
    """One executable per batch shape of ``function(state, batch)``.

    Every step of a run goes through the table, so a program is compiled for a shape once, whatever weak types,
    committed arrays or closures come in between. :func:`warm_up` fills it before the
    first step; from then on its shapes are the planned ones. A table that was never warmed up compiles
    a shape when it first meets it.

    With shardings over a mesh, give batches as NumPy arrays or with the sharding of the table: JAX compiles
    a program to spread an array that lies on one device.

    Args:
        function: pure; :class:`CompileLog` counts it by its ``__name__`` (by that of the function inside a
            ``functools.partial``).
        donate_state: let XLA reuse the buffers of ``state``, which are then gone for the caller.
        strict: refuse a batch of an unplanned shape; otherwise it is compiled, with a warning, and listed in
            :attr:`unplanned`.
        in_shardings: of ``(state, batch)``, as in :func:`jax.jit`; by default one device.
        out_shardings: of the result, as in :func:`jax.jit`. Where the result holds the next state, give
            that the sharding of the state.
        compiler_options: of XLA, by the names of its flags, as in ``{"xla_gpu_autotune_level": 0}``; on top of
            :func:`default_options`. Flags in ``XLA_FLAGS`` take precedence, and an option that XLA lacks is left out;
            either gives a warning.

    Attributes:
        steps: the executables by batch shape.
        planned: the batch shapes that it was warmed up for.
        unplanned: the batch shapes met since then that it was not.
        fingerprint: the ``shapes_fingerprint`` of the plan that it was warmed up for, or None.

    >>> import numpy as np
    >>> from multimodal_pad import pad_samples
    >>> def total(state, batch):
    ...     return state + batch.features["text"].sum()
    >>> table = StepTable(total)
    >>> float(table(np.float32(1), pad_samples([{"text": np.array([2, 3])}]))), len(table)
    (6.0, 1)
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any],
        *,
        donate_state: bool = False,
        strict: bool = True,
        in_shardings: Any = None,
        out_shardings: Any = None,
        compiler_options: CompilerOptions | None = None,
    ) -> None:
        given = {"in_shardings": in_shardings, "out_shardings": out_shardings}
        shardings = {name: value for name, value in given.items() if value is not None}
        self.name = _name(function)
        self._jitted = jax.jit(function, donate_argnums=(0,) if donate_state else (), **shardings)
        self._options = OptionSet(compiler_options)
        self.strict = strict
        self.steps: dict[BatchShape, CompiledStep] = {}
        self.planned: list[BatchShape] = []
        self.unplanned: list[BatchShape] = []
        self.fingerprint: str | None = None

    @property
    def compiler_options(self) -> dict[str, Any]:
        """The options that are passed to XLA: the platform's defaults and those given, less those that don't hold."""
        return self._options.options

    def __call__(self, state: Any, batch: Batch) -> Any:
        """Run the executable of the batch's shape.

        Raises:
            UnplannedShapeError: the table is strict and was not warmed up for that shape.
            StepMismatchError: state or batch have other dtypes, shapes or structure than those compiled for, such as a
                state that the step itself returned changed; the leaves are named by their paths.
            ValueError: they are sharded in another way.

        Warns:
            PlanWarning: the table is not strict, and the shape is an unplanned one, met for the first time.
        """
        step = self.steps.get(batch.shape) or self._first(state, batch)
        try:
            return step.call(state, batch)
        except TypeError:
            why = explain_mismatch(step.call, state, batch)
            if why is None:
                raise
            raise StepMismatchError(self._mismatch(why, batch.shape)) from None

    def compile(self, state: Any, batch: Batch) -> CompiledStep:
        """Compile for the shape of ``batch``, or return what is there. Only shapes and dtypes are read."""
        shape = batch.shape
        return self.steps.get(shape) or self.finish(shape, *self.lower(state, batch))

    def lower(self, state: Any, batch: Batch) -> tuple[Any, float]:
        """Trace and lower for the shape of ``batch``; return the lowered program, for ``.compile()``, and seconds."""
        started = time.perf_counter()
        try:
            lowered = self._jitted.lower(_structs("state", state), _structs("batch", batch))
        except Exception as error:
            error.add_note(f"while {self.name!r} was traced for {batch.shape}")
            raise
        return lowered, time.perf_counter() - started

    def result(self, state: Any, batch: Batch) -> Any:
        """Return shapes and dtypes of the step's result for a batch; :meth:`lower` doesn't trace it again."""
        return self._jitted.eval_shape(_structs("state", state), _structs("batch", batch))

    def finish(self, shape: BatchShape, lowered: Any, lowering_seconds: float = 0.0) -> CompiledStep:
        """Compile the result of :meth:`lower`, in any thread, and keep it."""
        started = time.perf_counter()
        try:
            compiled = self._options.compile(lowered.compile)
        except Exception as error:
            error.add_note(f"while {self.name!r} was compiled for {shape}")
            raise
        seconds = lowering_seconds + time.perf_counter() - started
        self.steps[shape] = CompiledStep(compiled, seconds, device_bytes(compiled))
        report_shape(self.name)
        return self.steps[shape]

    def _first(self, state: Any, batch: Batch) -> CompiledStep:
        """Compile for a shape that is met for the first time, if it may be."""
        if self.planned:
            message = f"{self.name!r} got a batch of an unplanned shape, {batch.shape}: {self._nearest(batch.shape)}"
            if self.strict:
                raise UnplannedShapeError(f"{message}; batch with the plan that the table was warmed up for")
            step = self.compile(state, batch)
            self.unplanned.append(batch.shape)
            warnings.warn(f"{message}; it was compiled now", PlanWarning, stacklevel=3)
            return step
        return self.compile(state, batch)

    def _mismatch(self, why: str, shape: BatchShape) -> str:
        advice = "warm up with a state and an example batch like those that come"
        if "comes back" in why:
            advice = "let the step give the state back as it takes it (x.astype(...) for a dtype)"
        return f"{self.name!r}, compiled for {shape}: {why}; {advice}"

    def _nearest(self, shape: BatchShape) -> str:
        """Name the nearest planned shape, and the differences from it."""
        lengths = dict(shape.lengths)
        alike = [
            other
            for other in self.planned
            if other.layout == shape.layout and dict(other.lengths).keys() == lengths.keys()
        ]
        of_plan = f"of {len(self.planned)}" + (f" of the plan {self.fingerprint[:12]}" if self.fingerprint else "")
        if not alike:
            first = self.planned[0]
            if first.layout != shape.layout:
                return f"the {len(self.planned)} planned ones are {first.layout} and not {shape.layout}"
            return f"the {len(self.planned)} planned ones have the modalities {[m for m, _ in first.lengths]}"
        nearest = min(alike, key=lambda other: _distance(other, shape))
        differences = [
            f"{name!r} has {length} positions and not {dict(nearest.lengths)[name]}"
            for name, length in lengths.items()
            if length != dict(nearest.lengths)[name]
        ]
        if shape.batch_size != nearest.batch_size:
            differences.append(f"the batch has {shape.batch_size} rows and not {nearest.batch_size}")
        return f"{', '.join(differences)}, as the nearest planned shape, {nearest} ({of_plan})"

    def __len__(self) -> int:
        return len(self.steps)

    def __str__(self) -> str:
        """List seconds and device bytes of each executable, most bytes first."""
        steps = sorted(self.steps.items(), key=lambda item: -(item[1].device_bytes or 0))
        body = [
            [str(shape), f"{step.seconds:.1f}", "-" if step.device_bytes is None else f"{step.device_bytes / 1e6:,.1f}"]
            for shape, step in steps
        ]
        return "\n".join(text_table([self.name, "seconds", "device MB"], body, left=1))


def as_table(step: StepTable | Callable[[Any, Any], Any], compiler_options: CompilerOptions | None = None) -> StepTable:
    """Return the table itself, or one of a function, with compiler options."""
    if not isinstance(step, StepTable):
        return StepTable(step, compiler_options=compiler_options)
    if compiler_options is not None:
        raise PaddingError(
            f"got compiler_options for the table of {step.name!r}, which has its own; give them to the StepTable"
        )
    return step


def device_bytes(compiled: Any) -> int | None:
    """Count the bytes that a compiled program holds while it runs.

    Argument + output + temporary - aliased; the field that XLA calls the peak leaves temporaries out
    on CPU.

    Args:
        compiled: the result of ``jax.jit(...).lower(...).compile()``.

    Returns:
        The bytes on one device, or None where XLA gives none.

    >>> device_bytes(jax.jit(lambda x: 2 * x).lower(np.ones(1000, np.float32)).compile())
    8000
    """
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return int(
        analysis.argument_size_in_bytes
        + analysis.output_size_in_bytes
        + analysis.temp_size_in_bytes
        - analysis.alias_size_in_bytes
    )


def program_digest(lowered: Any) -> str:
    """Return the SHA-256 of a lowered program, in hexadecimal: equal for equal programs.

    JAX's cache key is made of the program, too, and of the compiler's options: programs with equal keys have equal
    digests. It takes 0.1 s for a program that takes 3 s to lower.
    """
    return hashlib.sha256(lowered.as_text().encode()).hexdigest()


def batch_struct(example: Batch, shape: BatchShape) -> Batch:
    """Return the shapes and dtypes of a batch like another, at a batch shape.

    Args:
        example: any batch: its feature shapes, dtypes and targets serve.
        shape: of the batch.

    Returns:
        A batch of ``jax.ShapeDtypeStruct``.

    Raises:
        PaddingError: the two have other modalities or layouts.

    >>> from multimodal_pad import pad_samples
    >>> struct = batch_struct(pad_samples([{"text": np.zeros((1, 4))}]), BatchShape.of(8, {"text": 20}))
    >>> struct.features["text"].shape, struct.shape == BatchShape.of(8, {"text": 20})
    ((8, 20, 4), True)
    """
    modalities = [name for name, _ in shape.lengths]
    if set(modalities) != set(example.features):
        raise PaddingError(
            f"got a batch of {sorted(example.features)} and a shape of {modalities}; give both the same modalities"
        )
    if shape.layout != example.layout:
        raise PaddingError(
            f"got a {example.layout} batch and a {shape.layout} shape, {shape}; give both the same layout"
        )

    def at(x: Any, *front: int) -> Any:
        return jax.ShapeDtypeStruct((*front, *x.shape[len(front) :]), x.dtype, sharding=_spread(x))

    return shape.layout.struct(example, shape, at)


def _structs(root: str, tree: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, x: _struct(x, root, path), tree)


def _struct(x: Any, root: str, path: Any) -> jax.ShapeDtypeStruct:
    """Return shape and dtype, without weak type and placement on one device, which would each make another program."""
    if not hasattr(x, "shape"):
        raise PaddingError(
            f"got {type(x).__name__} {x!r} at {root}{jax.tree_util.keystr(path)}; give arrays, so that dtypes are "
            "fixed (of an Equinox model: its arrays alone, by eqx.partition)"
        )
    dtype = jax.dtypes.canonicalize_dtype(x.dtype, allow_extended_dtype=True)
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=_spread(x))


def _spread(x: Any) -> Any:
    """Return the sharding of an array that lies on several devices, or was put on another than the default one.

    What counts is not where the array happens to be, but what the program is.
    """
    sharding = getattr(x, "sharding", None)
    if sharding is None:
        return None
    moved = getattr(x, "committed", False) and sharding.device_set != {jax.local_devices()[0]}
    return sharding if moved or len(sharding.device_set) > 1 else None


def _name(function: Callable[..., Any]) -> str:
    """Return JAX's name for a function."""
    while isinstance(function, partial):
        function = function.func
    return getattr(function, "__name__", "<unnamed function>")


def _distance(one: BatchShape, other: BatchShape) -> float:
    """Return how far apart two shapes are: factors between their lengths, and between their rows."""
    lengths = zip(one.lengths, other.lengths, strict=True)
    apart = [abs(np.log(a / b)) for (_, a), (_, b) in lengths]
    return float(sum(apart) + abs(np.log(one.batch_size / other.batch_size)))
