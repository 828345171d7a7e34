"""Attention and model against float64 on the host; NaN in the padding; the same call twice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.accelerator import reference
from experiments.accelerator.budget import Clock
from experiments.accelerator.config import Config
from experiments.accelerator.random_model import random_model
from experiments.accelerator.record import Record
from experiments.lib.exactness import apart, with_nan
from experiments.lib.measure import parameters_of
from multimodal_pad import Batch, pad_samples
from multimodal_pad.compiling import default_threads
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig, masked_attention

PRECISIONS = (None, "tensorfloat32", "float32")
"""Precisions of float32 matrix products; None is JAX's default for the device."""

ATTENTION = {"odd lengths": ((17, 49), (17, 3, 1, 0, 9), (49, 1, 0, 5, 21)), "lengths of 1": ((1, 1), (1, 1), (1, 0))}
"""Padded lengths of queries and keys, and the real lengths of each sample."""

HEADS, HEAD_WIDTH = 2, 16
DIRECTIONS = 8
STEP = 1e-6

Row = dict[str, Any]


class Case(NamedTuple):
    """An attention implementation, a dtype, and the precision of its matrix products (None: JAX's default)."""

    implementation: Any
    dtype: str
    precision: str | None = None

    def context(self) -> Any:
        """Return a context in which to trace the case."""
        return nullcontext() if self.precision is None else jax.default_matmul_precision(self.precision)


Check = tuple[str, Case, Callable[[], Row]]
"""Name of the check, the case, and the function that returns its figures."""


def cases(platform: str) -> list[Case]:
    """List the cases to check on a platform (``jax.default_backend()``): cuDNN only on a GPU, in bfloat16.

    On CPU float32 products are exact at every precision, so that one is checked.

    >>> len(cases("cpu")), {case.implementation for case in cases("cpu")} == {"tiled", "xla"}
    (4, True)
    >>> [case for case in cases("gpu") if case.implementation == "cudnn"]
    [Case(implementation='cudnn', dtype='bfloat16', precision=None)]
    """
    precisions = PRECISIONS[:1] if platform == "cpu" else PRECISIONS
    both = [
        case
        for implementation in ("xla", "tiled")
        for case in (
            *(Case(implementation, "float32", precision) for precision in precisions),
            Case(implementation, "bfloat16"),
        )
    ]
    return [*([Case("cudnn", "bfloat16")] if platform == "gpu" else []), *both]


def measure(_name: str, config: Config, record: Record, clock: Clock, _cache_dir: Path) -> None:
    """Measure a row per check, compiling several side by side; leave out those for which there is no time."""
    listed = cases(jax.default_backend())
    if jax.default_backend() != "gpu":
        record.note("cuDNN needs an NVIDIA GPU")
    model = ModelCheck(config.check_lengths)
    checks: list[Check] = [
        (f"attention, {name}", case, partial(check_attention, case, name)) for case in listed for name in ATTENTION
    ]
    checks += [("model", case, partial(model.check, case)) for case in listed]
    rows: list[Row] = []

    def run(check: Check) -> Row | None:
        return None if clock.over() else run_check(*check)

    with ThreadPoolExecutor(default_threads()) as pool:
        for future in as_completed([pool.submit(run, check) for check in checks]):
            row = future.result()
            if row is not None:
                rows.append(row)
                record.keep(rows=sorted(rows, key=lambda row: (row["what"], row["implementation"], row["dtype"])))
    if len(rows) < len(checks):
        record.note(f"{len(rows)} of {len(checks)} checks in the time")


def run_check(what: str, case: Case, check: Callable[[], Row]) -> Row:
    """Make the row of a check; an error is put into the row, and the other checks go on.

    >>> run_check("division", Case("xla", "float32"), lambda: 1 / 0)["failed"]
    'ZeroDivisionError: division by zero'
    """
    begun = time.perf_counter()
    try:
        figures = check()
    except Exception as error:  # noqa: BLE001 - an implementation that can't be traced is a result
        figures = {"failed": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"what": what, **case._asdict(), **figures, "seconds": round(time.perf_counter() - begun, 2)}


def check_attention(case: Case, name: str) -> Row:
    """Check ``masked_attention`` and its gradients at one pair of padded lengths.

    >>> row = check_attention(Case("xla", "float32", "float32"), "lengths of 1")
    >>> row["output_apart"] < 1e-5, row["nan_changes"]
    (True, 0.0)
    """
    padded, *lengths = ATTENTION[name]
    query_lengths, key_lengths = map(np.array, lengths)
    rng = np.random.default_rng(0)
    shapes = [(len(query_lengths), length, HEADS, HEAD_WIDTH) for length in (padded[0], padded[1], padded[1])]
    clean = tuple(jnp.asarray(rng.standard_normal(shape), case.dtype) for shape in shapes)
    weights = rng.standard_normal(shapes[0])
    wanted, wanted_gradients = reference.attention(
        tuple(np.asarray(x, np.float64) for x in clean), query_lengths, key_lengths, weights
    )

    def objective(arrays: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        out = masked_attention(
            *arrays,
            query_lengths=jnp.asarray(query_lengths),
            key_lengths=jnp.asarray(key_lengths),
            implementation=case.implementation,
        )
        return (out.astype(jnp.float32) * weights.astype(np.float32)).sum(), out

    compute = jax.jit(lambda arrays: jax.grad(objective, has_aux=True)(arrays)[::-1])
    dirty = tuple(
        jnp.where((np.arange(x.shape[1]) < of[:, None])[..., None, None], x, jnp.nan)
        for x, of in zip(clean, (query_lengths, key_lengths, key_lengths), strict=True)
    )

    def flat(arrays: tuple[jax.Array, ...]) -> tuple[np.ndarray, np.ndarray]:
        out, gradients = compute(arrays)
        return np.asarray(out, np.float64), np.concatenate([np.asarray(x, np.float64).ravel() for x in gradients])

    with case.context():
        found = {"clean": flat(clean), "dirty": flat(dirty), "again": flat(clean)}
    gradient = np.concatenate([x.ravel() for x in wanted_gradients])
    difference = np.linalg.norm(found["clean"][1] - gradient) / max(np.linalg.norm(gradient), 1e-9)
    return _figures(found, wanted, float(difference))


class ModelCheck:
    """A model of two modalities, one of them missing in some samples, with its exact outputs.

    Its gradient is compared with float64 along random directions ``d``, where a central difference gives the slope of
    the exact function: the mean of ``((g - exact) . d)^2`` over standard normal ``d`` is the squared norm of the
    gradient's error.

    Args:
        padded: lengths of text and audio; the first sample is as long.
    """

    def __init__(self, padded: tuple[int, int]) -> None:
        text, audio = padded
        self.config = TransformerConfig(
            {"text": ModalityConfig(vocabulary_size=11), "audio": ModalityConfig(feature_width=5, kernel_size=3)},
            num_outputs=3,
            d_model=32,
            num_heads=4,
            crossmodal_layers=1,
            memory_layers=1,
            dropout_rate=0.0,
        )
        rng = np.random.default_rng(0)
        pairs = ((text, audio), (1, 1), (text - 1, 0), (0, audio - 2), (text - 2, 2))
        samples = [
            {"text": rng.integers(0, 11, words), "audio": rng.standard_normal((frames, 5), np.float32)}
            for words, frames in pairs
        ]
        self.clean = pad_samples(samples, modalities=("text", "audio"), pad_to={"text": text, "audio": audio})
        self.dirty = with_nan(self.clean)
        model = random_model(self.config)
        self.parameters = nnx.state(model, nnx.Param)
        exact = {path: array.astype(np.float64) for path, array in parameters_of(model).items()}
        self.weights = rng.standard_normal((len(samples), 3))

        def value(parameters: Mapping[str, np.ndarray]) -> float:
            return float((reference.outputs(self.config, parameters, samples) * self.weights).sum())

        self.wanted = reference.outputs(self.config, exact, samples)
        self.directions = [
            {path: rng.standard_normal(array.shape) for path, array in exact.items()} for _ in range(DIRECTIONS)
        ]
        self.slopes = np.array(
            [
                (
                    value({path: x + STEP * direction[path] for path, x in exact.items()})
                    - value({path: x - STEP * direction[path] for path, x in exact.items()})
                )
                / (2 * STEP)
                for direction in self.directions
            ]
        )

    def check(self, case: Case) -> Row:
        """Check outputs and gradient of one case."""
        config = replace(self.config, dtype=case.dtype, attention=case.implementation)
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: MultimodalTransformer(config, rngs=nnx.Rngs(0))))

        def objective(parameters: Any, batch: Batch) -> tuple[jax.Array, jax.Array]:
            outputs = nnx.merge(graphdef, parameters)(batch)
            return (outputs * self.weights.astype(np.float32)).sum(), outputs

        compute = jax.jit(lambda parameters, batch: jax.grad(objective, has_aux=True)(parameters, batch))

        def flat(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
            gradient, outputs = compute(self.parameters, batch)
            state = nnx.to_flat_state(gradient)
            arrays = {
                "/".join(map(str, path)): np.asarray(value[...], np.float64)
                for path, value in zip(state.paths, state.leaves, strict=True)
            }
            return np.asarray(outputs, np.float64), np.concatenate([arrays[p].ravel() for p in self.directions[0]])

        with case.context():
            found = {"clean": flat(self.clean), "dirty": flat(self.dirty), "again": flat(self.clean)}
        gradient = found["clean"][1]
        along = [np.concatenate([x.ravel() for x in direction.values()]) @ gradient for direction in self.directions]
        difference = np.sqrt(np.mean((np.array(along) - self.slopes) ** 2)) / np.linalg.norm(gradient)
        return _figures(found, self.wanted, float(difference))


def _figures(found: Mapping[str, tuple[np.ndarray, ...]], wanted: np.ndarray, gradient_apart: float) -> Row:
    """Make the figures of outputs and of gradients, by the name of the input."""

    def changed(name: str) -> float:
        return max(apart(one, other) for one, other in zip(found["clean"], found[name], strict=True))

    return {
        "output_apart": apart(found["clean"][0], wanted),
        "gradient_apart": gradient_apart,
        "nan_changes": changed("dirty"),
        "repeat_changes": changed("again"),
    }
