"""The packed layout: the samples of a batch end to end, on one axis per modality, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Unpack

import numpy as np

from multimodal_pad.errors import PaddingError, SampleError
from multimodal_pad.layouts.arrays import LayingOut, array_lengths, laid_out, taken_together
from multimodal_pad.layouts.buffers import aligned_empty
from multimodal_pad.layouts.fitting import Shapes, check_plan, fit_samples
from multimodal_pad.layouts.layout import Batch, BatchOfLayout, BatchShape, Layout, named_layout
from multimodal_pad.layouts.segment_ids import places_of, real_of, segments_of, starts_of
from multimodal_pad.layouts.targets import give_targets_back
from multimodal_pad.layouts.tile_pairs import Room, has_room, listed_pairs, room_of, tiles_of
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.lengths.trees import Tree, leaves_of, map_of_modalities, map_tree


class PackedBatch(NamedTuple):
    """B samples end to end on one axis per modality. A NamedTuple of arrays, so ``jax.jit`` takes it as it is.

    Attributes:
        features: ``{m: (N_m, *F_m)}`` in the dtype of the samples: one sample after the other, in the same order in
            each modality, then padding. N_m is the capacity.
        lengths: ``{m: (B,)}`` int32: positions of each sample; 0 = the modality is missing, or the sample only fills
            up the batch.
        targets: ``(B, ...)``, or a dict of such arrays; None where the samples have none. Zeros where a sample only
            fills up.
        sample_mask: ``(B,)`` bool; False = an empty sample that only fills up the batch.
        ids: int32 ``(B,)``: the numbers of the samples, -1 where one only fills up; None where they were not
            asked for.
        share_sizes: int32 ``(S,)``: the real samples of each of S shares, one per device, of a batch that is shared
            out: share s has the samples from ``s B / S`` and the positions from ``s N_m / S``, and padding of its own.
            So equal runs of all arrays are packed batches themselves, one on each device under ``jax.shard_map``.
            None where the batch is not shared out.
        tile_pairs: ``{(target, source): (S * P, 2)}`` int32: for attention on a GPU or TPU, which tiles of 64 positions
            of the target's axis share samples with which of the source's; P is part of the batch shape. In each
            share ascending, and unused ones, with -1, at its end. None where the plan has none.
        position_targets: ``{m: (N_m, ...)}``, a target for each position of a modality, or dicts of such arrays; None
            where the samples have none. Zeros in the padding.

    >>> batch = pack_samples([{"text": [5, 6, 7]}, {"text": [8]}], capacity={"text": 6})
    >>> batch.features["text"].tolist(), batch.lengths["text"].tolist(), batch.starts["text"].tolist()
    ([5, 6, 7, 8, 0, 0], [3, 1], [0, 3])
    >>> batch.segment_ids["text"].tolist(), batch.positions["text"].tolist()
    ([0, 0, 0, 1, 2, 2], [0, 1, 2, 0, 0, 0])
    """

    features: dict[str, np.ndarray]
    lengths: dict[str, np.ndarray]
    targets: Tree
    sample_mask: np.ndarray
    ids: np.ndarray | None = None
    share_sizes: np.ndarray | None = None
    tile_pairs: dict[tuple[str, str], np.ndarray] | None = None
    position_targets: dict[str, Tree] | None = None

    @property
    def shares(self) -> int:
        """S, into how many shares it is laid out: 1 unless it is for several devices. Known when it is traced."""
        return 1 if self.share_sizes is None else len(self.share_sizes)

    @property
    def starts(self) -> dict[str, np.ndarray]:
        """``{m: (B,)}`` int32: the first position of each sample, in NumPy or inside of a jitted function."""
        return {name: starts_of(x, len(self.features[name]), self.shares) for name, x in self.lengths.items()}

    @property
    def segment_ids(self) -> dict[str, np.ndarray]:
        """``{m: (N_m,)}`` int32: the sample of each position, by its place in the batch; B at padding."""
        return {name: segments_of(x, len(self.features[name]), self.shares) for name, x in self.lengths.items()}

    @property
    def positions(self) -> dict[str, np.ndarray]:
        """``{m: (N_m,)}`` int32: the place of each position in its sample; 0 at padding."""
        return {name: places_of(x, len(self.features[name]), self.shares) for name, x in self.lengths.items()}

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """``{m: (N_m,)}`` bool, True = real: made of the lengths, in NumPy or inside of a jitted function."""
        return {name: real_of(x, len(self.features[name]), self.shares) for name, x in self.lengths.items()}

    @property
    def layout(self) -> Layout:
        """The packed layout, with its room for pairs of tiles."""
        if self.tile_pairs is None:
            return PACKED
        tiles = {name: tiles_of(len(x), self.shares) for name, x in self.features.items()}
        return PackedLayout(room=room_of(self.tile_pairs, tiles, self.shares))

    @property
    def shape(self) -> BatchShape:
        """The batch shape, with the modalities in the order of their names."""
        return BatchShape.of(self.sample_mask.shape[0], {m: len(x) for m, x in self.features.items()}, self.layout)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays of the batch, which is what goes to the device."""
        return sum(x.nbytes for field in self for x in leaves_of(field))


@dataclass(frozen=True)
class PackedLayout(Layout):
    """All samples of a batch end to end, on one axis per modality that holds its capacity of positions.

    The lengths of its batch shapes are capacities.

    Attributes:
        room: which pairs of tiles its batches list, and how many: see :data:`~multimodal_pad.layouts.tile_pairs.Room`.
    """

    name: str = "packed"
    room: Room = ()
    end_to_end: bool = True

    def __str__(self) -> str:
        """Return the name, and the room of its lists."""
        listed = ", ".join(f"{target} to {source} {more:+}" for target, source, more in self.room)
        return f"{self.name} (pairs of tiles: {listed})" if listed else self.name

    def lay_out(
        self,
        arrays: Mapping[str, list[np.ndarray]],
        samples: Sequence[Sample],
        shape: BatchShape,
        **options: Unpack[LayingOut],
    ) -> PackedBatch:
        """Copy the samples end to end, those of each share from its first position on."""
        sizes = options.get("share_sizes")
        one = self.share(shape, 1 if sizes is None else len(sizes))
        runs = _runs((len(samples),) if sizes is None else sizes)
        capacities, numbers = dict(one.lengths), options["numbers"]

        def place(name: str, column: list[np.ndarray], lengths: np.ndarray, value: Any) -> np.ndarray:
            for run in runs:
                _check_fits(lengths[run], name, capacities, numbers[run])
            return _pack([column[run] for run in runs], capacities[name], value, column[0])

        batch = PackedBatch(**laid_out(arrays, samples, shape.batch_size, place, options))
        batch = batch if sizes is None else _shared_out(batch, runs, one.batch_size)
        if not self.room:
            return batch
        tiles = {name: tiles_of(n) for name, n in capacities.items()}
        return batch._replace(
            tile_pairs=listed_pairs(batch.lengths, tiles, self.divided(batch.shares).room, batch.shares)
        )

    def take_apart(self, batch: BatchOfLayout) -> list[dict[str, Any]]:
        """Cut the axes where samples begin and end."""
        features = {m: np.asarray(x) for m, x in batch.features.items()}
        lengths = {m: np.asarray(x).tolist() for m, x in batch.lengths.items()}
        starts = {m: np.asarray(x).tolist() for m, x in batch.starts.items()}
        rows = np.flatnonzero(np.asarray(batch.sample_mask)).tolist()

        def cut(m: str, x: np.ndarray, row: int) -> np.ndarray:
            return x[starts[m][row] : starts[m][row] + lengths[m][row]]

        samples: list[dict[str, Any]] = [{m: cut(m, x, row) for m, x in features.items()} for row in rows]
        give_targets_back(samples, batch, rows, cut)
        return samples

    def struct(self, example: BatchOfLayout, shape: BatchShape, like: Callable[..., Any]) -> PackedBatch:
        """Return arrays of ``(capacity, ...)`` and ``(B, ...)``; the example is packed, too, and in as many shares."""
        count, capacities = shape.batch_size, dict(shape.lengths)
        return PackedBatch(
            {m: like(x, capacities[m]) for m, x in example.features.items()},
            {m: like(x, count) for m, x in example.lengths.items()},
            map_tree(lambda x: like(x, count), example.targets),
            like(example.sample_mask, count),
            None if example.ids is None else like(example.ids, count),
            None if example.share_sizes is None else like(example.share_sizes),
            None if example.tile_pairs is None else self._listed(example, capacities, like),
            map_of_modalities(lambda m, x: like(x, capacities[m]), example.position_targets),
        )

    def _listed(
        self, example: BatchOfLayout, capacities: Mapping[str, int], like: Callable[..., Any]
    ) -> dict[tuple[str, str], Any]:
        """Return the lists of pairs at other capacities."""
        shares, tiles = example.shares, {m: tiles_of(n, example.shares) for m, n in capacities.items()}
        return {
            (t, s): like(example.tile_pairs[t, s], shares * (tiles[t] + tiles[s]) + more) for t, s, more in self.room
        }

    def check_alone(self, batch: BatchOfLayout) -> None:
        """Raise a PaddingError where a batch has several shares: one share is one device's."""
        if batch.shares > 1:
            raise PaddingError(
                f"got a packed batch in {batch.shares} shares, one for each of as many devices; run the model under "
                "jax.shard_map over them, as fit does, or take batches that are not shared out (shard(..., devices=1))"
            )

    def check_streamed(self) -> None:
        """Raise a PaddingError where lists of pairs have room only for the batches that were planned."""
        if self.room:
            raise PaddingError(
                "got a packing plan with tile_pairs=True for a stream, whose batches may have more pairs than it has "
                "room for; plan without, and attention goes over all queries and keys"
            )

    def holds(self, shape: BatchShape, lengths: np.ndarray) -> bool:
        """Return whether samples are within the capacities, and within the room for pairs of tiles."""
        if not super().holds(shape, lengths) or not self.room:
            return super().holds(shape, lengths)
        return has_room(lengths, dict(shape.lengths), self.room)

    def full_lengths(self, shape: BatchShape) -> dict[str, np.ndarray]:
        """Return lengths as even as can be."""
        count = shape.batch_size
        return {m: (n // count + (np.arange(count) < n % count)).astype(np.int32) for m, n in shape.lengths}

    def positions(self, batch_sizes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the capacities."""
        del batch_sizes
        return lengths

    def price(self, batch_sizes: np.ndarray, lengths: np.ndarray, cost: Cost) -> np.ndarray:
        """Return the cost of samples of equal lengths that fill it, which is the least where cost outgrows length."""
        return batch_sizes * np.asarray(cost(lengths / batch_sizes[:, None]), np.float64)

    def paid(
        self, batch_sizes: np.ndarray, lengths: np.ndarray, real: np.ndarray, costs: np.ndarray, cost: Cost
    ) -> np.ndarray:
        """Return the samples' own costs, and in unused positions the cost of samples of equal lengths."""
        return costs + self.price(batch_sizes, lengths - real, cost)

    def share(self, shape: BatchShape, count: int) -> BatchShape:
        """Return the shape of a run of the samples, with as large a part of the capacities."""
        uneven = [f"{name!r} has {n} positions" for name, n in shape.lengths if n % count]
        if shape.batch_size % count or uneven:
            what = f"a batch of {shape.batch_size} samples" if shape.batch_size % count else uneven[0]
            raise PaddingError(
                f"got {what} to share out over {count}; plan with plan_packing(..., shares={count}) or a multiple, and "
                f"a batch size that {count} divides"
            )
        shares = tuple((name, n // count) for name, n in shape.lengths)
        return BatchShape(shape.batch_size // count, shares, self.divided(count))

    def divided(self, count: int) -> PackedLayout:
        """Return the layout with as large a part of the room for pairs of tiles."""
        return replace(self, room=tuple((target, source, more // count) for target, source, more in self.room))

    def joined(self, shape: BatchShape, count: int) -> BatchShape:
        """Return the shape with so many times the samples and capacities."""
        room = tuple((target, source, count * more) for target, source, more in self.room)
        lengths = tuple((name, count * n) for name, n in shape.lengths)
        return BatchShape(count * shape.batch_size, lengths, replace(self, room=room))

    def describe(self, shape: BatchShape) -> str:
        """Describe a shape as samples in (capacities)."""
        return f"{shape.batch_size} packed in (" + ", ".join(f"{m} {n}" for m, n in shape.lengths) + ")"


PACKED = named_layout(PackedLayout())


def pack_samples(
    samples: Sequence[Sample],
    plan: Shapes | None = None,
    *,
    capacity: Mapping[str, int] | None = None,
    batch_size: int | None = None,
    modalities: Sequence[str] | None = None,
    pad_value: float | Mapping[str, float] = 0,
    check_finite: bool = False,
    ids: Sequence[int] | None = None,
    with_ids: bool = False,
    layout: PackedLayout = PACKED,
) -> PackedBatch:
    """Lay samples end to end on one axis per modality, and say how long each is.

    Args:
        samples: at least one ``{modality: (length, *feature_shape), "targets": ..., "position_targets":
            {modality: (length, ...)}}``; a modality that is missing in a sample is an array of length 0. Targets are
            arrays, or dicts of them (or of such dicts).
        plan: a :class:`~multimodal_pad.PackingPlan` or a policy: the batch has the smallest capacity that holds the
            samples, as many samples as the plan's batches, and its layout. By default, and with ``capacity``, no plan.
        capacity: positions of each modality's axis, at least the sum of the lengths and at least 1. By default that
            sum, or 1 where the modality is missing in every sample.
        batch_size: samples of the batch; empty ones fill it up. By default the plan's, or ``len(samples)``.
        modalities: which keys to pack, in which order; by default those of the plan, or of the first sample.
        pad_value: what stands behind the last sample, for all modalities or per modality.
        check_finite: look for NaN and inf in float features (reads every value once more).
        ids: the numbers of the samples, which errors give; by default their places in ``samples``.
        with_ids: whether the batch holds the numbers too.
        layout: that of a :class:`~multimodal_pad.Packed` policy, whose plan may have pairs of tiles listed.

    Returns:
        A batch in freshly allocated, 64-byte-aligned buffers, which share nothing with ``samples``.

    Raises:
        SampleError: as :func:`~multimodal_pad.pad_samples`; for more positions than the capacity, and for more pairs
            of tiles than the layout has room for, too.
        UncoveredLengthError: no capacity of the plan holds a sample, or all of them together.
        PaddingError: a plan of padded batches, or ``capacity`` beside a plan.

    >>> batch = pack_samples([{"text": [5, 6, 7], "audio": [0.5]}, {"text": [8], "audio": []}], batch_size=3)
    >>> batch.features["text"].tolist(), batch.lengths["audio"].tolist(), batch.sample_mask.tolist()
    ([5, 6, 7, 8], [1, 0, 0], [True, True, False])
    """
    options: dict[str, Any] = {"pad_value": pad_value, "check_finite": check_finite, "with_ids": with_ids}
    if plan is not None:
        check_plan(plan, PACKED.name, "pad_samples")
        if capacity is not None:
            raise PaddingError("got capacity beside a plan, which says what batches hold; give one of the two")
        return fit_samples(samples, plan, batch_size=batch_size, modalities=modalities, ids=ids, **options)
    samples, arrays, count, numbers = taken_together(samples, batch_size, modalities, ids)
    if capacity is None:
        capacity = {name: max(1, sum(map(len, column))) for name, column in arrays.items()}
    return layout.lay_out(arrays, samples, BatchShape.of(count, capacity, layout), numbers=numbers, **options)


def unpack(batch: Batch) -> list[dict[str, Any]]:
    """Undo :func:`pack_samples`: give the real samples of a batch.

    Args:
        batch: in the packed layout; of NumPy or JAX arrays.

    Returns:
        One dict per sample whose ``sample_mask`` is True, with views of the batch's arrays, and ``"targets"`` and
        ``"position_targets"`` where the batch has them.

    >>> unpack(pack_samples([{"text": [5, 6]}, {"text": [7]}], batch_size=4))[1]["text"].tolist()
    [7]
    """
    return PACKED.take_apart(batch)


def _runs(sizes: Sequence[int]) -> list[slice]:
    """Return slices of so many items each, one after the other."""
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _pack(shares: list[list[np.ndarray]], capacity: int, value: Any, first: np.ndarray) -> np.ndarray:
    """Copy the samples of each share, and the padding behind them, in one call that writes every byte once."""
    out = aligned_empty((len(shares) * capacity, *first.shape[1:]), first.dtype)
    empty = [capacity - int(array_lengths(arrays).sum()) for arrays in shares]
    padding = np.full((max(empty), *first.shape[1:]), value, first.dtype)
    pieces = [piece for arrays, n in zip(shares, empty, strict=True) for piece in (*arrays, padding[:n])]
    np.concatenate(pieces, out=out, casting="no")
    return out


def _shared_out(batch: PackedBatch, runs: list[slice], size: int) -> PackedBatch:
    """Return the batch with ``size`` samples in each share: those of a run, and empty ones for what it lacks."""
    behind = iter(range(runs[-1].stop, len(batch.sample_mask)))  # the empty samples
    rows: list[int] = []
    for number, run in enumerate(runs, start=1):
        rows += range(run.start, run.stop)
        rows += islice(behind, number * size - len(rows))

    def in_shares(tree: Tree) -> Tree:
        return map_tree(lambda x: np.take(x, rows, axis=0, out=aligned_empty(x.shape, x.dtype)), tree)

    sizes = aligned_empty((len(runs),), np.dtype(np.int32))
    sizes[:] = [run.stop - run.start for run in runs]
    of_samples = {name: in_shares(getattr(batch, name)) for name in ("lengths", "targets", "sample_mask", "ids")}
    return batch._replace(**of_samples, share_sizes=sizes)


def _check_fits(lengths: np.ndarray, name: str, capacities: Mapping[str, int], numbers: Sequence[int]) -> None:
    """Raise a SampleError that says how many positions do not fit."""
    if name not in capacities:
        raise SampleError(f"capacity has no {name!r}, only {sorted(capacities)}; give one per modality")
    total = int(lengths.sum())
    if capacities[name] < max(1, total):
        longest = int(lengths.argmax())
        raise SampleError(
            f"{name!r}: {total} positions of {len(numbers)} samples do not fit a capacity of {capacities[name]} "
            f"(the longest, sample {numbers[longest]}, has {lengths[longest]}); give at least {max(1, total)}"
        )
