"""A shape plan: the finite set of batch shapes that a run may emit, and what they cost."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from multimodal_pad.errors import PlanError
from multimodal_pad.layouts.fitting import check_rows, check_together
from multimodal_pad.layouts.layout import Batch, BatchShape, BatchSpec, Layout, batch_shapes
from multimodal_pad.layouts.padded import PADDED
from multimodal_pad.lengths.cost import Cost, check_priced, cost_name
from multimodal_pad.lengths.table import Lengths, LengthTable, as_lengths
from multimodal_pad.output import write_file
from multimodal_pad.planning.plan_file import FIELDS, read_fields, write_fields
from multimodal_pad.planning.plan_plot import draw_plan
from multimodal_pad.scheduling.policy import Grouping
from multimodal_pad.text_table import html_table, text_table, wrapped

Plan = TypeVar("Plan")


class TailSaving(NamedTuple):
    """The savings of a plan of as many shapes, at least, without the longest samples or with them cut.

    Attributes:
        share: of the samples, the most expensive ones first.
        samples: how many they are.
        dropping: share of the padded cost that goes if they are left out.
        truncating: the same if they are cut to the longest lengths of the rest.
    """

    share: float
    samples: int
    dropping: float
    truncating: float


@dataclass(frozen=True, eq=False, repr=False)
class ShapePlan:
    """Batch shapes chosen jointly over all modalities; made by :func:`~multimodal_pad.planning.planner.plan_shapes`.

    Costs are in the unit of the cost function, per row, a batch's overhead included. Figures are of an
    epoch over the lengths that the plan was made for, every batch full; in ``"random"`` grouping they
    are means over the batches drawn.

    Attributes:
        modalities: names of the M columns.
        lengths: int64 ``(k, M)``: bucket lengths of each shape, cheapest first.
        batch_sizes: int64 ``(k,)``: samples per batch of each shape; to a budget without overhead, no more than
            the shape takes.
        costs: float64 ``(k,)``: of a row at each shape.
        samples: float64 ``(k,)``: samples per epoch that each shape takes.
        shape_efficiency: float64 ``(k,)``: real cost / padded cost at each shape (1 where it takes none).
        efficiency: real cost / padded cost in all.
        position_efficiency: real / padded positions of each modality and in ``"total"``.
        efficiencies: float64 ``(K,)``: cost efficiency of the plans with at most 1, 2, ... K shapes.
        bounds: float64 ``(K,)``: what no plan with at most 1, 2, ... K shapes can exceed.
        savings: what leaving out or cutting the longest samples would save.
        alignment: of each modality; its padded lengths are multiples of it.
        grouping: by which the batches are meant to be made.
        batch_budget: the limit that every batch keeps; None where all shapes have one batch size.
        fingerprint: of the length table that the plan was made for.
        cost: the cost function; None where a plan was read from a file and the function is not ours.
        cost_name: its name in files.
        reason: of ``max_shapes="auto"``: how many shapes it chose, and why, in a line; files don't keep it.
        table: the length table that it was made for, for pictures; neither files nor pickles keep it.

    >>> from multimodal_pad import LengthTable, plan_shapes
    >>> table = LengthTable(("text", "audio"), np.array([[3, 9], [9, 3], [2, 8]]))
    >>> plan = plan_shapes(table, max_shapes=2, batch_size=32)
    >>> [str(shape) for shape in plan.batch_shapes], round(plan.efficiency, 3)
    (['32 x (audio 3, text 9)', '32 x (audio 9, text 3)'], 0.944)
    >>> plan.place(np.array([[2, 9], [9, 9]])).tolist()
    [1, -1]
    """

    modalities: tuple[str, ...]
    lengths: np.ndarray
    batch_sizes: np.ndarray
    costs: np.ndarray
    samples: np.ndarray
    shape_efficiency: np.ndarray
    efficiency: float
    position_efficiency: dict[str, float]
    efficiencies: np.ndarray
    bounds: np.ndarray
    savings: tuple[TailSaving, ...]
    alignment: dict[str, int]
    grouping: Grouping
    batch_budget: float | None
    fingerprint: str
    cost: Cost | None = field(default=None, repr=False)
    cost_name: str = ""
    reason: str = ""
    table: LengthTable | None = field(default=None, repr=False)

    @property
    def bound(self) -> float:
        """The cost efficiency that no plan with so many shapes can exceed."""
        return float(self.bounds[-1])

    @property
    def gap(self) -> float:
        """The share of the padded cost that a better plan with so many shapes could save, at most."""
        return max(0.0, 1 - self.efficiency / self.bound) if self.bound else 0.0

    @property
    def batch_shapes(self) -> list[BatchShape]:
        """The shapes that XLA compiles one program for each, with their rows."""
        return batch_shapes(self.batch_sizes, self.lengths, self.modalities, PADDED)

    @property
    def shapes_fingerprint(self) -> str:
        """Fingerprint of modalities, shapes and rows that it compiles; :attr:`fingerprint` is of the lengths."""
        content = json.dumps([self.modalities, self.lengths.tolist(), self.batch_sizes.tolist()])
        return hashlib.sha256(content.encode()).hexdigest()

    def spec(self, example: Batch) -> BatchSpec:
        """Return the spec that a step is compiled for, with any batch as an example of what batches hold."""
        return BatchSpec(self.batch_shapes, example, self.shapes_fingerprint)

    def __len__(self) -> int:
        return len(self.lengths)

    def place(self, lengths: np.ndarray) -> np.ndarray:
        """Return the number of the cheapest shape that holds each row of ``lengths (n, M)``; -1 where none does."""
        return place(self.lengths, lengths)

    def covers(self, lengths: np.ndarray) -> np.ndarray:
        """Return which rows of ``lengths (n, M)`` fit a shape: bool ``(n,)``."""
        return self.place(lengths) >= 0

    def why_not(self, lengths: np.ndarray) -> str:
        """Name the shape that would keep most of a row ``(M,)``, and what of the row is too long for it."""
        nearest = self.lengths[np.argmax(np.minimum(lengths, self.lengths).sum(axis=1))]
        column = int(np.argmax(lengths > nearest))
        listed = ", ".join(f"{name} {length}" for name, length in zip(self.modalities, nearest, strict=True))
        return (
            f"{self.modalities[column]!r} has {lengths[column]} positions and the nearest planned shape is ({listed})"
        )

    @property
    def layout(self) -> Layout:
        """The padded layout."""
        return PADDED

    def shape_for(
        self, lengths: np.ndarray, *, batch_size: int | None = None, numbers: Sequence[int] | None = None
    ) -> BatchShape:
        """Return the cheapest batch shape that holds samples of ``lengths (n, M)`` together.

        Args:
            lengths: of the samples.
            batch_size: what the batch size is expected to be; by default anything.
            numbers: of the samples, for errors.

        Raises:
            UncoveredLengthError: none does; the sample is named, or what they need together.
            SampleError: there are more samples than a batch has.
            PaddingError: another batch size than that of the shape.

        >>> from multimodal_pad import plan_shapes
        >>> plan = plan_shapes({"text": [3, 5, 9], "audio": [30, 20, 80]}, max_shapes=2, batch_size=4)
        >>> str(plan.shape_for(np.array([[3, 20], [5, 30]])))
        '4 x (audio 30, text 5)'
        """
        needed = check_together(self, np.asarray(lengths), numbers)
        held = np.flatnonzero((needed <= self.lengths).all(axis=1))
        sizes = self.batch_sizes[held]
        number = int(held[np.argmax(sizes >= min(len(lengths), sizes.max()))])
        check_rows(len(lengths), int(self.batch_sizes[number]), batch_size)
        return self.batch_shapes[number]

    def __repr__(self) -> str:
        sizes = sorted(set(self.batch_sizes.tolist()))
        rows = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
        return (
            f"ShapePlan({len(self)} {'shape' if len(self) == 1 else 'shapes'} of {', '.join(self.modalities)}, batches "
            f"of {rows}, {self.grouping} grouping, {self.efficiency:.1%} of the padded cost is real)"
        )

    def __str__(self) -> str:
        first, *more = self._told()
        return "\n".join([*wrapped([first]), *text_table(*self._rows()), *wrapped(more)])

    def _rows(self) -> tuple[list[str], list[list[str]]]:
        """Return the table of the shapes: its heading, and a row for each."""
        heading = [*self.modalities, "rows", "samples", "efficiency"]
        shapes = zip(self.lengths.tolist(), self.batch_sizes, self.samples, self.shape_efficiency, strict=True)
        return heading, [[*map(str, shape), str(rows), f"{n:,.0f}", f"{share:.3f}"] for shape, rows, n, share in shapes]

    def _told(self) -> list[str]:
        """Return the lines above the table, and those below it."""
        positions = ", ".join(f"{name} {share:.3f}" for name, share in self.position_efficiency.items())
        return [
            f"{len(self)} batch {'shape' if len(self) == 1 else 'shapes'} for {self.samples.sum():,.0f} samples, "
            f"{self.grouping} grouping",
            f"padding efficiency: cost {self.efficiency:.3f}; positions {positions}",
            f"bound: {self.bound:.3f} for any plan of at most {len(self.bounds)}; a better one saves at most "
            f"{self.gap:.1%}",
            *map(_tell_saving, self.savings),
            *([self.reason] if self.reason else []),
        ]

    def plot(self, lengths: Lengths | None = None) -> Any:
        """Draw the plan, as ``multimodal-pad plan --plot`` does without other policies.

        Args:
            lengths: a length table, its columns, or samples, to draw the shapes over; by default those that the plan
                was made for. A plan that was read from a file has none, and is drawn without.

        Returns:
            A ``matplotlib.figure.Figure``, which a notebook shows; ``.savefig("plan.png")`` writes it.

        Raises:
            PaddingError: matplotlib is not installed.
            LengthError: lengths of other modalities.
        """
        return draw_plan(self, self.table if lengths is None else as_lengths(lengths))

    def _repr_html_(self) -> str:
        """Show the plan in a notebook: the table of :meth:`__str__`."""
        first, *more = self._told()
        return html_table(first, *self._rows(), more)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "table": None}

    def to_json(self) -> str:
        """Return the plan as JSON, with a format version; :meth:`from_json` reads it."""
        fields = {name: getattr(self, FIELDS[name]) for name in FIELDS}
        fields["savings"] = [saving._asdict() for saving in self.savings]
        return write_fields(fields, self.cost, self.cost_name)

    @classmethod
    def from_json(cls, text: str | bytes, cost: Cost | None = None) -> ShapePlan:
        """Read the plan that :meth:`to_json` wrote.

        Args:
            text: the JSON.
            cost: the cost function, where it is one of your own, which a file cannot hold.

        Raises:
            PlanError: not JSON, not a shape plan, of another version, or with a field that is missing
                or makes no sense; the field is named.
            PaddingError: a cost of other modalities than the plan's.
        """
        fields = read_fields(text)
        fields["savings"] = tuple(TailSaving(**saving) for saving in fields["savings"])
        if cost is not None:
            check_priced(cost, fields["modalities"])
            fields["cost"], fields["cost_name"] = cost, cost_name(cost)
        return cls(**{FIELDS.get(name, name): value for name, value in fields.items()})

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write :meth:`to_json` to a file, aside first, so that the file is there whole or not at all.

        Raises:
            FileExistsError: the file is there and ``overwrite`` is not given.
        """
        save_plan(path, self.to_json(), overwrite=overwrite)

    @classmethod
    def load(cls, path: str | Path, cost: Cost | None = None) -> ShapePlan:
        """Read :meth:`to_json` from a file.

        Raises:
            PlanError: as :meth:`from_json`, with the file's name.
        """
        return load_plan(path, lambda text: cls.from_json(text, cost))


def save_plan(path: str | Path, text: str, *, overwrite: bool) -> None:
    """Write a plan's JSON to a file, aside first.

    Raises:
        FileExistsError: the file is there and ``overwrite`` is not given.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:
        raise FileExistsError(f"{path} exists; name another file, or ask to overwrite it")
    write_file(path, text.encode())


def load_plan(path: str | Path, read: Callable[[bytes], Plan]) -> Plan:
    """Read a plan from a file by ``read``.

    Raises:
        PlanError: as ``read``, with the file's name.
    """
    try:
        return read(Path(path).read_bytes())
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from None


def place(shapes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the number of the first shape that holds each row of ``lengths (n, M)``; -1 where none does.

    >>> place(np.array([[4, 8], [8, 4], [8, 8]]), np.array([[1, 8], [5, 1], [5, 5], [9, 0]])).tolist()
    [0, 1, 2, -1]
    """
    columns = np.ascontiguousarray(np.asarray(lengths).T)
    places = np.full(columns.shape[1], -1, np.int64)
    for number in reversed(range(len(shapes))):
        held = columns[0] <= shapes[number, 0]
        for column, length in zip(columns[1:], shapes[number, 1:], strict=True):
            held &= column <= length
        places[held] = number
    return places


def _tell_saving(saving: TailSaving) -> str:
    them = "sample" if saving.samples == 1 else f"{saving.samples:,} samples"
    return (
        f"the longest {them} ({saving.share:.1%}): without {'it' if saving.samples == 1 else 'them'} the padded cost "
        f"is {saving.dropping:.1%} less, cut to the rest {saving.truncating:.1%}"
    )
