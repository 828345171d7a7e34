"""Samples to batches of planned shapes, and their outputs back to samples: the common part of all prediction."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.compiling import CompilerOptions, StepTable, batch_struct, warm_up
from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Batch, BatchOfLayout, BatchShape, BatchSpec, Layout
from multimodal_pad.lengths.samples import Sample, check_whole
from multimodal_pad.planning.plan_policy import PolicyLike, as_policy
from multimodal_pad.scheduling.checks import choose_batch_size, choose_cost
from multimodal_pad.scheduling.dealing import policy_shapes
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.serving.inputs import Inputs, Kind, as_configured, kinds_of
from multimodal_pad.serving.outputs import OutputParts
from multimodal_pad.serving.pieces import LongRequests, Piece, check_long_requests, pieces_of
from multimodal_pad.serving.program import Program, program_of
from multimodal_pad.serving.stats import PredictionStats
from multimodal_pad.serving.waiting import Taken, Waiting
from multimodal_pad.sources.standardizing import FeatureStatistics

MOST_SHAPES = 256
"""The most shapes of a policy: each is a program to compile before the first answer."""


class Dispatched(NamedTuple):
    """A batch on its way: its contents, and its outputs on the device."""

    pieces: list[Piece]
    batch: BatchOfLayout
    outputs: Any


class PieceRunner:
    """The way from samples to pieces, batches, and back to outputs; :class:`Predictor` documents the rest.

    Arguments, attributes and errors are those of a predictor.
    """

    def __init__(
        self,
        model: Any,
        plan: PolicyLike,
        *,
        batch_size: int | None = None,
        example: Sample | Batch | Any = None,
        positions: str | Mapping[str, str] | None = None,
        long_samples: LongRequests = "error",
        standardize: Mapping[str, FeatureStatistics] | None = None,
        check_finite: bool = True,
        pad_value: float | Mapping[str, float] = 0,
        smaller: Sequence[int] = (),
        vocabulary_sizes: Mapping[str, int] | None = None,
        vocabularies: Mapping[str, Mapping[str, int]] | None = None,
        compiler_options: CompilerOptions | None = None,
        progress: bool = False,
    ) -> None:
        self.policy = as_policy(plan)
        check_long_requests(long_samples)
        self.batch_size = choose_batch_size(self.policy, batch_size)
        self.long_samples: LongRequests = long_samples
        self.check_finite, self.pad_value, self.smaller = check_finite, pad_value, tuple(smaller)
        self.standardize, self.positions = dict(standardize or {}), positions
        self.vocabularies = {name: dict(tokens) for name, tokens in (vocabularies or {}).items()}
        self._planned = _planned_shapes(self.policy, self.batch_size)
        self._smaller = [shape for part in self.smaller for shape in _parts(self._planned, part)]
        self.shapes = list(dict.fromkeys([*self._planned, *self._smaller]))
        self._cost = choose_cost(self.policy, None)
        self.program = model if isinstance(model, Program) else program_of(model)
        sizes = dict(vocabulary_sizes) if vocabulary_sizes is not None else _vocabulary_sizes(self.program.model)
        self._vocabulary_sizes = {name: size for name, size in sizes.items() if name in self.policy.modalities}
        self._parts = OutputParts(positions, self.policy.modalities)
        self._table = StepTable(self.program.predict, compiler_options=compiler_options)
        self._progress, self._inputs = progress, None
        self._warming, self._counting = threading.Lock(), threading.Lock()
        self.stats = PredictionStats()
        if example is not None:
            self.warm_up(example)

    @property
    def inputs(self) -> dict[str, Kind]:
        """Feature shape and dtype of each modality, as the model takes them.

        Raises:
            PaddingError: no sample was seen yet.
        """
        if self._inputs is None:
            raise PaddingError("got no sample yet to know feature shapes and dtypes by; give example=, or predict one")
        return self._inputs.kinds

    def warm_up(self, example: Sample | Batch | Any) -> None:
        """Compile all shapes for samples like an example: a sample, a batch, a batcher, or the kinds of :attr:`inputs`.

        Does nothing where that is done already.

        Raises:
            SampleError: the sample lacks a modality, or has something other than numbers there.
            PaddingError: statistics for another feature shape.
        """
        with self._warming:
            if self._inputs is not None:
                return
            kinds = self._kinds(example)
            inputs = Inputs(kinds, self.standardize, check_finite=self.check_finite)
            one = {name: np.zeros((1, *kind.feature_shape), kind.dtype) for name, kind in kinds.items()}
            by_layout: dict[Layout, list[BatchShape]] = {}
            for shape in self.shapes:
                by_layout.setdefault(shape.layout, []).append(shape)
            for shapes in by_layout.values():
                batch = self._laid_out(shapes[0], [Piece(one, (1,) * len(one), None)])
                spec = BatchSpec(shapes, batch, None if self._smaller else self.policy.fingerprint)
                warm_up(self._table, spec, self.program.leaves, progress=self._progress)
            self._inputs = inputs

    def pieces(self, sample: Sample, owner: Any, number: int) -> list[Piece]:
        """Return the pieces of a sample in batches; raises the errors of the sample."""
        if self._inputs is None:
            self.warm_up(sample)
        arrays = self._inputs.arrays(sample, number)  # type: ignore[union-attr]  warm_up has set it
        pieces = pieces_of(arrays, self.policy, self.long_samples, owner, number)
        with self._counting:
            self.stats.samples += 1
            if len(pieces) > 1:
                self.stats.windowed += 1
                self.stats.windows += len(pieces)
            elif pieces[0].arrays is not arrays:
                self.stats.truncated += 1
        return pieces

    def batch_struct(self, shape: BatchShape) -> Any:
        """Return the shapes and dtypes of a batch at a batch shape."""
        one = {name: np.zeros((1, *kind.feature_shape), kind.dtype) for name, kind in self.inputs.items()}
        return batch_struct(self._laid_out(shape, [Piece(one, (1,) * len(one), None)]), shape)

    def limited(self, kinds: Mapping[str, Kind]) -> dict[str, Kind]:
        """Return kinds with the sizes of the vocabularies."""
        return {name: kind._replace(vocabulary_size=self._vocabulary_sizes.get(name)) for name, kind in kinds.items()}

    def waiting(self) -> Waiting:
        """Return queues for the planned shapes."""
        return Waiting(self._planned, self._smaller, self.policy.modalities, self._cost)

    def dispatch(self, taken: Taken) -> Dispatched:
        """Lay a batch out and start it on the device."""
        shape, pieces = taken
        batch = self._laid_out(shape, pieces)
        outputs = self._table(self.program.leaves, batch)
        with self._counting:
            self.stats.ran(shape, sum(sum(piece.lengths) for piece in pieces))
        return Dispatched(pieces, batch, outputs)

    def finish(self, dispatched: Dispatched) -> list[list[np.ndarray]]:
        """Wait for a batch; return the outputs of each piece.

        Where some are NaN in a packed batch, its samples run again one by one: what overflows in one makes
        others NaN, too.
        """
        pieces, batch, outputs = dispatched
        found = self._parts.of_pieces(outputs, batch, len(pieces))
        if batch.layout.end_to_end and len(pieces) > 1 and any(_has_nan(parts) for parts in found):
            with self._counting:
                self.stats.repeated += len(pieces)
            return [self.finish(self.dispatch((self._alone(piece), [piece])))[0] for piece in pieces]
        return found

    def together(self, parts: Sequence[list[np.ndarray]], weights: Sequence[int]) -> Any:
        """Return the output of a sample, from those of its pieces; their positions are the weights of a mean."""
        return self._parts.together(parts, weights)

    @property
    def most_samples(self) -> int:
        """The most samples of a batch."""
        return max(shape.batch_size for shape in self._planned)

    def _laid_out(self, shape: BatchShape, pieces: Sequence[Piece]) -> BatchOfLayout:
        arrays = {name: [piece.arrays[name] for piece in pieces] for name in self.policy.modalities}
        return shape.layout.lay_out(
            arrays,
            [{}] * len(pieces),
            shape,
            numbers=range(len(pieces)),
            pad_value=self.pad_value,
            check_finite=False,
            with_ids=False,
        )

    def _alone(self, piece: Piece) -> BatchShape:
        """Return the cheapest shape for one piece."""
        waiting = self.waiting()
        waiting.add([piece])
        return next(iter(waiting.batches()))[0]

    def _kinds(self, example: Any) -> dict[str, Kind]:
        modalities = self.policy.modalities
        if isinstance(example, Mapping) and all(isinstance(kind, Kind) for kind in example.values()):
            return {name: example[name] for name in modalities}
        if not isinstance(example, Mapping | BatchSpec) and hasattr(example, "spec"):
            example = example.spec()
        kinds = kinds_of(example.example if isinstance(example, BatchSpec) else example, modalities)
        if isinstance(example, Mapping):  # a raw sample; standardising makes it float32
            kinds |= {name: kinds[name]._replace(dtype=np.dtype(np.float32)) for name in self.standardize}
        return as_configured(self.limited(kinds), _feature_widths(self.program.model))


def _planned_shapes(policy: Policy, batch_size: int | None) -> list[BatchShape]:
    shapes = policy_shapes(policy, batch_size)
    if len(shapes) > MOST_SHAPES:
        raise PaddingError(
            f"got {policy!r}, which has {len(shapes):,} shapes, each a program to compile; plan at most {MOST_SHAPES}, "
            "as with plan_shapes(..., max_shapes=8)"
        )
    return shapes


def _parts(shapes: Sequence[BatchShape], part: int) -> list[BatchShape]:
    """Return each shape at a part of its samples."""
    check_whole("smaller", part, 2)
    found = []
    for shape in shapes:
        try:
            found.append(shape.layout.share(shape, part))
        except PaddingError:
            raise PaddingError(
                f"got smaller={part}, which doesn't divide {shape}; give a number that does, or plan other batch sizes"
            ) from None
    return found


def _vocabulary_sizes(model: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the vocabulary sizes in a model's config."""
    modalities = (model or {}).get("config", {}).get("modalities", {})
    return {name: sizes["vocabulary_size"] for name, sizes in modalities.items() if sizes.get("vocabulary_size")}


def _feature_widths(model: Mapping[str, Any] | None) -> dict[str, int]:
    """Return the feature widths in a model's config."""
    modalities = (model or {}).get("config", {}).get("modalities", {})
    return {name: sizes["feature_width"] for name, sizes in modalities.items() if sizes.get("feature_width")}


def _has_nan(parts: Sequence[np.ndarray]) -> bool:
    return any(part.dtype.kind not in "biu" and bool(np.isnan(part).any()) for part in parts)
