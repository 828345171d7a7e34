"""A shape plan: the finite set of batch shapes that a run may emit, and what they cost."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from multimodal_pad.cost import Cost, TransformerCost, attention_area, position_count
from multimodal_pad.errors import LengthError, PaddingError, PlanError
from multimodal_pad.lengths import check_names

FORMAT, VERSION = "multimodal_pad shape plan", 1

_PLAIN_COSTS: dict[str, Cost] = {"position_count": position_count, "attention_area": attention_area}


class TailSaving(NamedTuple):
    """What a plan of as many shapes would save, at least, if the longest samples were not what they are.

    Attributes:
        share: of the samples, the most expensive ones first.
        samples: how many those are.
        dropping: share of the padded cost that goes if they are left out.
        truncating: the same if they are cut to the longest lengths of the rest.
    """

    share: float
    samples: int
    dropping: float
    truncating: float


@dataclass(frozen=True, eq=False)
class ShapePlan:
    """Batch shapes chosen jointly over all modalities; made by :func:`~multimodal_pad.planner.plan_shapes`.

    Costs are in the unit of the cost function, per row, a batch's overhead included. Figures are of an
    epoch over the lengths that the plan was made for, every batch full; in ``"random"`` grouping they
    are means over the batches drawn.

    Attributes:
        modalities: names of the M columns.
        shapes: int64 ``(k, M)``: padded lengths, cheapest first.
        batch_sizes: int64 ``(k,)``: rows per batch of each shape.
        costs: float64 ``(k,)``: of a row at each shape.
        samples: float64 ``(k,)``: samples per epoch that each shape takes.
        shape_efficiency: float64 ``(k,)``: real cost / padded cost at each shape (1 where it takes none).
        efficiency: real cost / padded cost in all.
        position_efficiency: real / padded positions of each modality and in ``"total"``.
        efficiencies: float64 ``(K,)``: cost efficiency of the plans with at most 1, 2, ... K shapes.
        bounds: float64 ``(K,)``: what no plan with at most 1, 2, ... K shapes can exceed.
        savings: what the longest samples cost everybody.
        alignment: of each modality; its padded lengths are multiples of it.
        grouping: ``"length"`` or ``"random"``: how the batches are meant to be made.
        fingerprint: of the length table that the plan was made for.
        cost: the cost function; None where a plan was read from a file and the function is not ours.
        cost_name: what the file calls it.
    """

    modalities: tuple[str, ...]
    shapes: np.ndarray
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
    grouping: str
    fingerprint: str
    cost: Cost | None = field(default=None, repr=False)
    cost_name: str = ""

    @property
    def bound(self) -> float:
        """The cost efficiency that no plan with so many shapes can exceed."""
        return float(self.bounds[-1])

    @property
    def gap(self) -> float:
        """The share of the padded cost that a better plan with so many shapes could save, at most."""
        return max(0.0, 1 - self.efficiency / self.bound) if self.bound else 0.0

    def __len__(self) -> int:
        return len(self.shapes)

    def place(self, lengths: np.ndarray) -> np.ndarray:
        """The number of the cheapest shape that holds each row of ``lengths (n, M)``; -1 where none does."""
        return place(self.shapes, lengths)

    def __str__(self) -> str:
        heading = [*self.modalities, "rows", "samples", "efficiency"]
        body = [
            [*map(str, shape), str(rows), f"{samples:,.0f}", f"{efficiency:.3f}"]
            for shape, rows, samples, efficiency in zip(
                self.shapes.tolist(), self.batch_sizes, self.samples, self.shape_efficiency, strict=True
            )
        ]
        widths = [max(map(len, column)) for column in zip(heading, *body, strict=True)]
        positions = ", ".join(f"{name} {share:.3f}" for name, share in self.position_efficiency.items())
        return "\n".join(
            [
                f"{len(self)} batch {'shape' if len(self) == 1 else 'shapes'} for {self.samples.sum():,.0f} samples, "
                f"{self.grouping} grouping",
                *("  ".join(map(str.rjust, row, widths)) for row in [heading, *body]),
                f"padding efficiency: cost {self.efficiency:.3f}; positions {positions}",
                f"bound: {self.bound:.3f} with any {len(self.bounds)}; a better plan saves at most {self.gap:.1%}",
                *map(_tell_saving, self.savings),
            ]
        )

    def to_json(self) -> str:
        """The plan as JSON, with a format version; :meth:`from_json` reads it."""
        values: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        for name in _FIELDS:
            value = getattr(self, name)
            values[name] = value.tolist() if isinstance(value, np.ndarray) else value
        values["savings"] = [saving._asdict() for saving in self.savings]
        values["cost"] = _describe_cost(self.cost, self.cost_name)
        return (
            "{\n" + ",\n".join(f" {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()) + "\n}\n"
        )

    @classmethod
    def from_json(cls, text: str | bytes, cost: Cost | None = None) -> ShapePlan:
        """The plan that :meth:`to_json` wrote.

        Args:
            text: the JSON.
            cost: the cost function, where it is one of your own, which a file cannot hold.

        Raises:
            PlanError: not JSON, not a shape plan, of another version, or with a field that is missing
                or makes no sense; the field is named.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise PlanError(f"not a shape plan: the text is not JSON ({error}); write plans with to_json") from None
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise PlanError(f"not a shape plan: the JSON lacks {{'format': {FORMAT!r}}}; write plans with to_json")
        if values.get("version") != VERSION:
            raise PlanError(
                f"got a shape plan of version {values.get('version')!r}, and this multimodal_pad reads version "
                f"{VERSION}; plan the shapes again"
            )
        missing = [name for name in (*_FIELDS, "savings", "cost") if name not in values]
        if missing:
            raise PlanError(f"the shape plan lacks {missing}; plan the shapes again")
        known = {name: _read_field(name, values[name]) for name in _FIELDS}
        try:
            known["savings"] = tuple(TailSaving(**saving) for saving in values["savings"])
            name = str(values["cost"]["name"])
            plan = cls(**known, cost=cost or _known_cost(values["cost"]), cost_name=name)
        except (TypeError, KeyError, PaddingError) as error:
            raise PlanError(f"the shape plan's savings or cost make no sense ({error!r}); plan again") from None
        _check_consistent(plan)
        return plan

    def save(self, path: str | Path, *, overwrite: bool = False) -> None:
        """Write :meth:`to_json` to a file, aside first, so that the file is there whole or not at all.

        Raises:
            FileExistsError: the file is there and ``overwrite`` is not given.
        """
        path = Path(path)
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists; name another file, or ask to overwrite it")
        handle, aside = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(self.to_json())
            Path(aside).chmod(0o644)
            Path(aside).replace(path)
        except BaseException:
            Path(aside).unlink(missing_ok=True)
            raise

    @classmethod
    def load(cls, path: str | Path, cost: Cost | None = None) -> ShapePlan:
        """:meth:`from_json` of a file.

        Raises:
            PlanError: as :meth:`from_json`, with the file's name.
        """
        try:
            return cls.from_json(Path(path).read_bytes(), cost)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from None


def place(shapes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The number of the first shape that holds each row of ``lengths (n, M)``; -1 where none does.

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


_INTEGERS = {"shapes": 2, "batch_sizes": 1}
_FLOATS = {"costs": 1, "samples": 1, "shape_efficiency": 1, "efficiencies": 1, "bounds": 1}
_FIELDS = (
    "modalities",
    *_INTEGERS,
    *_FLOATS,
    "efficiency",
    "position_efficiency",
    "alignment",
    "grouping",
    "fingerprint",
)


def _read_field(name: str, value: Any) -> Any:
    """One field of the JSON in its type, or a PlanError that names it."""
    try:
        if name in _INTEGERS:
            array = np.asarray(value)
            if array.ndim == _INTEGERS[name] and array.dtype.kind == "i" and array.size and array.min() >= 1:
                return array.astype(np.int64)
        elif name in _FLOATS:
            array = np.asarray(value, np.float64)
            if array.ndim == _FLOATS[name] and array.size and np.isfinite(array).all() and array.min() >= 0:
                return array
        elif name == "modalities":
            if isinstance(value, list) and all(isinstance(item, str) for item in value):
                return check_names(value)
        elif name == "efficiency":
            if isinstance(value, float | int) and np.isfinite(value):
                return float(value)
        elif name in ("position_efficiency", "alignment"):
            if isinstance(value, dict) and all(isinstance(item, float | int) for item in value.values()):
                return value
        elif isinstance(value, str) and (name != "grouping" or value in ("length", "random")):
            return value
    except (ValueError, TypeError, LengthError):
        pass
    raise PlanError(f"the shape plan's {name!r} makes no sense (got {str(value)[:60]}); plan the shapes again")


def _check_consistent(plan: ShapePlan) -> None:
    """Raise a PlanError unless the fields of a plan that was read belong together."""
    count = len(plan.modalities)
    if plan.shapes.shape[1] != count or set(plan.alignment) != set(plan.modalities):
        raise PlanError(f"the shape plan's shapes or alignment don't match its modalities {list(plan.modalities)}")
    for name in ("batch_sizes", "costs", "samples", "shape_efficiency"):
        if len(getattr(plan, name)) != len(plan):
            raise PlanError(f"the shape plan has {len(plan)} shapes and {len(getattr(plan, name))} {name}; plan again")
    if len(plan.efficiencies) != len(plan.bounds) or (np.diff(plan.costs) < 0).any():
        raise PlanError("the shape plan's shapes are not in the order of their costs, or its curve is cut; plan again")


def _describe_cost(cost: Cost | None, name: str) -> Mapping[str, Any]:
    if isinstance(cost, TransformerCost):
        options = asdict(cost)
        return {"name": "TransformerCost", "options": {**options, "modalities": list(options["modalities"])}}
    return {"name": name}


def _known_cost(described: Mapping[str, Any]) -> Cost | None:
    """The cost function that a file describes, where it is one of this package."""
    if described["name"] == "TransformerCost":
        return TransformerCost(**{**described["options"], "modalities": tuple(described["options"]["modalities"])})
    return _PLAIN_COSTS.get(described["name"])


def _tell_saving(saving: TailSaving) -> str:
    them = "sample" if saving.samples == 1 else f"{saving.samples:,} samples"
    return (
        f"the longest {them} ({saving.share:.1%}): without {'it' if saving.samples == 1 else 'them'} the padded cost "
        f"is {saving.dropping:.1%} less, cut to the rest {saving.truncating:.1%}"
    )
