"""A packing plan: how many positions of each modality hold a batch of exactly B samples, laid end to end."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.layouts.fitting import check_rows, check_together
from multimodal_pad.layouts.layout import Batch, BatchShape, BatchSpec, batch_shapes
from multimodal_pad.layouts.packed import PackedLayout
from multimodal_pad.layouts.tile_pairs import TILE, Room, tiles_of
from multimodal_pad.lengths.cost import Cost, check_priced, cost_name
from multimodal_pad.lengths.table import Lengths, LengthTable, as_lengths
from multimodal_pad.planning.packing_plot import draw_packing
from multimodal_pad.planning.plan import load_plan, save_plan
from multimodal_pad.planning.plan_file import PACKING_READERS, read_fields, write_fields
from multimodal_pad.text_table import html_table, text_table, wrapped

FORMAT = "multimodal_pad packing plan"


@dataclass(frozen=True, eq=False, repr=False)
class PackingPlan:
    """Capacities for batches of exactly B samples in the packed layout; made by :func:`plan_packing`.

    Figures are means over the epochs that were dealt to find it.

    Attributes:
        modalities: names of the M columns.
        lengths: int64 ``(k, M)``: the capacity of each modality at each shape, smallest first.
        batch_size: samples of every batch.
        shares: packs of a batch: into how many equal parts it can be shared out, over the devices of all processes.
        batches: float64 ``(k,)``: batches of an epoch at each shape.
        extra: batches of an epoch, at most, beyond as many as the number of samples asks for.
        efficiency: fill in cost: real cost / (real cost + cost of the unused positions).
        position_efficiency: fill: real positions / capacity, of each modality and in ``"total"``.
        unrounded_efficiency: the fill without the alignment.
        longest: positions of the longest sample of each modality.
        alignment: of each modality; capacities are multiples of it times the shares.
        room: for the pairs of tiles that batches list, per attention; see
            :data:`~multimodal_pad.layouts.tile_pairs.Room`. Empty where they list none.
        fingerprint: of the length table that the plan was made for.
        cost: the cost function; None where a plan was read from a file and the function is not ours.
        cost_name: its name in files.
        table: the length table that it was made for, for pictures; neither files nor pickles keep it.

    >>> from multimodal_pad import LengthTable, plan_packing
    >>> rng = np.random.default_rng(0)
    >>> table = LengthTable(("text", "audio"), rng.integers(1, 60, (480, 2)))
    >>> plan = plan_packing(table, batch_size=16)
    >>> len(plan), plan.position_efficiency["total"] > 0.97
    (1, True)
    """

    modalities: tuple[str, ...]
    lengths: np.ndarray
    batch_size: int
    shares: int
    batches: np.ndarray
    extra: int
    efficiency: float
    position_efficiency: dict[str, float]
    unrounded_efficiency: dict[str, float]
    longest: dict[str, int]
    alignment: dict[str, int]
    room: Room
    fingerprint: str
    cost: Cost | None = field(default=None, repr=False)
    cost_name: str = ""
    table: LengthTable | None = field(default=None, repr=False)

    @property
    def batch_sizes(self) -> np.ndarray:
        """Samples per batch of each shape, int64 ``(k,)``."""
        return np.full(len(self.lengths), self.batch_size, np.int64)

    @property
    def batch_shapes(self) -> list[BatchShape]:
        """The shapes that XLA compiles one program for each."""
        return batch_shapes(self.batch_sizes, self.lengths, self.modalities, self.layout)

    @property
    def layout(self) -> PackedLayout:
        """The layout of its batches, with the pairs of tiles that they list."""
        return PackedLayout(room=self.room)

    @property
    def shapes_fingerprint(self) -> str:
        """Fingerprint of what the plan compiles and deals; :attr:`fingerprint` is that of the lengths."""
        content = [self.modalities, self.lengths.tolist(), self.batch_size, self.shares, self.room]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    def spec(self, example: Batch) -> BatchSpec:
        """Return the spec that a step is compiled for, with any packed batch as an example of what batches hold."""
        return BatchSpec(self.batch_shapes, example, self.shapes_fingerprint)

    def __len__(self) -> int:
        return len(self.lengths)

    def covers(self, lengths: np.ndarray) -> np.ndarray:
        """Return which rows of ``lengths (n, M)`` fit the largest capacity, of all shares together: bool ``(n,)``."""
        return (np.asarray(lengths) <= self.lengths[-1]).all(axis=1)

    def why_not(self, lengths: np.ndarray) -> str:
        """Say what of a row ``(M,)`` is more than the largest capacity."""
        column = int(np.argmax(lengths > self.lengths[-1]))
        return (
            f"{self.modalities[column]!r} has {lengths[column]} positions and the largest capacity is "
            f"{self.lengths[-1, column]}"
        )

    def shape_for(
        self, lengths: np.ndarray, *, batch_size: int | None = None, numbers: Sequence[int] | None = None
    ) -> BatchShape:
        """Return the smallest batch shape that holds samples of ``lengths (n, M)`` end to end, as one share.

        Args:
            lengths: of the samples.
            batch_size: what the batch size is expected to be; by default anything.
            numbers: of the samples, for errors.

        Raises:
            UncoveredLengthError: none does; the sample is named, or what they need together.
            SampleError: there are more samples than a batch has.
            PaddingError: another batch size than the plan's.
        """
        check_rows(len(lengths), self.batch_size, batch_size)
        needed = check_together(self, np.asarray(lengths), numbers)
        return self.batch_shapes[int((needed <= self.lengths).all(axis=1).argmax())]

    def __repr__(self) -> str:
        held = ", ".join(f"{name} {n:,}" for name, n in zip(self.modalities, self.lengths[0].tolist(), strict=True))
        more = f" and {len(self) - 1} more" if len(self) > 1 else ""
        return f"PackingPlan(batches of {self.batch_size} in ({held}){more}, {self.efficiency:.1%} of the cost is real)"

    def __str__(self) -> str:
        """Describe what batches hold, how full they are, and what is left to gain."""
        first, *more = self._told()
        return "\n".join([*wrapped([first]), *text_table(*self._rows()), *wrapped(more)])

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Return the table of the capacities: its heading, and a row for each shape."""
        rows = zip(self.lengths.tolist(), self.batches.tolist(), strict=True)
        body = [[f"{n:,}" for n in row] + [str(self.batch_size), f"{count:,.0f}"] for row, count in rows]
        return [*self.modalities, "samples", "batches"], body

    def _told(self) -> list[str]:
        """Return the lines above the table, and those below it."""
        parts = "" if self.shares == 1 else f", in {self.shares} shares"
        extra = f"at most {self.extra} of an epoch beyond those that the samples ask for"
        return [
            f"{len(self)} packed {'shape' if len(self) == 1 else 'shapes'}, batches of {self.batch_size}{parts}",
            f"fill: positions {_told(self.position_efficiency)}; cost {self.efficiency:.3f}",
            f"before rounding to {_alignments(self.alignment)}: {_told(self.unrounded_efficiency)}",
            f"left to gain: {1 - self.efficiency:.1%} of the cost",
            *([f"extra batches: {extra}"] if self.extra else []),
            *_tell_longest(self),
            *_tell_pairs(self),
        ]

    def plot(self, lengths: Lengths | None = None, *, seed: int = 0) -> Any:
        """Draw an epoch of the plan, as ``multimodal-pad plan --packed --plot`` does.

        Args:
            lengths: a length table, its columns, or samples, to deal; by default those that the plan was made for. A
                plan that was read from a file has none, and only what is empty is drawn.
            seed: of the epoch.

        Returns:
            A ``matplotlib.figure.Figure``, which a notebook shows; ``.savefig("plan.png")`` writes it.

        Raises:
            PaddingError: matplotlib is not installed.
            UncoveredLengthError: a sample is longer than the largest capacity.
            LengthError: lengths of other modalities.
        """
        return draw_packing(self, self.table if lengths is None else as_lengths(lengths), seed=seed)

    def _repr_html_(self) -> str:
        """Show the plan in a notebook: the table of :meth:`__str__`."""
        first, *more = self._told()
        return html_table(first, *self._rows(), more)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "table": None}

    def to_json(self) -> str:
        """Return the plan as JSON, with a format version; :meth:`from_json` reads it."""
        fields = {name: getattr(self, "lengths" if name == "shapes" else name) for name in PACKING_READERS}
        return write_fields(fields, self.cost, self.cost_name, FORMAT)

    @classmethod
    def from_json(cls, text: str | bytes, cost: Cost | None = None) -> PackingPlan:
        """Read the plan that :meth:`to_json` wrote.

        Args:
            text: the JSON.
            cost: the cost function, where it is one of your own, which a file cannot hold.

        Raises:
            PlanError: not JSON, not a packing plan, of another version, or with a field that is missing or makes no
                sense; the field is named.
            PaddingError: a cost of other modalities than the plan's.
        """
        fields = read_fields(text, PACKING_READERS, FORMAT)
        if cost is not None:
            check_priced(cost, fields["modalities"])
            fields["cost"], fields["cost_name"] = cost, cost_name(cost)
        return cls(lengths=fields.pop("shapes"), **fields)

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write :meth:`to_json` to a file, aside first, so that the file is there whole or not at all.

        Raises:
            FileExistsError: the file is there and ``overwrite`` is not given.
        """
        save_plan(path, self.to_json(), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, cost: Cost | None = None) -> PackingPlan:
        """Read :meth:`to_json` from a file.

        Raises:
            PlanError: as :meth:`from_json`, with the file's name.
        """
        return load_plan(path, lambda text: cls.from_json(text, cost))


def _told(shares: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {share:.3f}" for name, share in shares.items())


def _alignments(alignment: Mapping[str, int]) -> str:
    steps = set(alignment.values())
    return str(steps.pop()) if len(steps) == 1 else ", ".join(f"{name} {n}" for name, n in alignment.items())


def _tell_longest(plan: PackingPlan) -> Iterator[str]:
    """Yield a line for each modality whose longest sample is longer than a mean batch."""
    for name, capacity in zip(plan.modalities, plan.lengths[0].tolist(), strict=True):
        mean = capacity * plan.position_efficiency[name] / plan.shares
        if plan.longest[name] > 1.05 * mean:
            yield (
                f"the longest {name} of {plan.longest[name]:,} positions is {plan.longest[name] / max(mean, 1):.1f} "
                "times what a mean batch has"
            )


def _tell_pairs(plan: PackingPlan) -> Iterator[str]:
    """Yield how many of all pairs of tiles attention looks at, in the first shape."""
    if plan.room:
        lengths = plan.lengths[0].tolist()
        tiles = {m: tiles_of(n, plan.shares) for m, n in zip(plan.modalities, lengths, strict=True)}
        room = PackedLayout(room=plan.room).divided(plan.shares).room
        listed, all_pairs = sum(tiles[t] + tiles[s] + more for t, s, more in room), sum(tiles.values()) ** 2
        yield f"attention: {listed:,} of {all_pairs:,} pairs of tiles of {TILE} positions"
