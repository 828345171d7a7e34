"""The JSON of a shape plan: every field written as it is, and checked when it is read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from multimodal_pad.errors import PaddingError, PlanError
from multimodal_pad.layouts.tile_pairs import Room
from multimodal_pad.lengths.cost import PLAIN_COSTS, Cost, TransformerCost
from multimodal_pad.lengths.samples import check_names
from multimodal_pad.lengths.table import LONGEST
from multimodal_pad.scheduling.groupings import GROUPINGS, as_grouping
from multimodal_pad.scheduling.policy import Grouping

FORMAT, VERSION = "multimodal_pad shape plan", 1

Reader = Callable[[Any, dict[str, Any]], Any]
"""A reader of a field: takes its value and the fields before it, and returns it as a plan has it."""


def write_fields(fields: Mapping[str, Any], cost: Cost | None, cost_name: str, kind: str = FORMAT) -> str:
    """Write JSON with a line per field; the cost as options where it is this package's, else by name alone."""
    described: dict[str, Any] = {"name": cost_name}
    if isinstance(cost, TransformerCost) and cost_name == "TransformerCost":
        described["options"] = {**asdict(cost), "modalities": list(cost.modalities)}
    values = {"format": kind, "version": VERSION, **fields, "cost": described}
    lines = [f" {json.dumps(name)}: {json.dumps(value, default=_plain)}" for name, value in values.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def read_fields(text: str | bytes, readers: Mapping[str, Reader] | None = None, kind: str = FORMAT) -> dict[str, Any]:
    """Read the fields that :func:`write_fields` wrote, with ``cost`` (None where it is not ours) and ``cost_name``.

    Args:
        text: the JSON.
        readers: the reader of each field, in this order; by default those of a shape plan.
        kind: the format that the text must name.

    Raises:
        PlanError: not JSON, not a shape plan, another version, or a field that is missing or makes no
            sense; the field is named.
    """
    readers, what = _READERS if readers is None else readers, kind.removeprefix("multimodal_pad ")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PlanError(f"not a {what}: the text is not JSON ({error})") from None
    if not isinstance(values, dict) or values.get("format") != kind:
        raise PlanError(f"not a {what}: the JSON lacks {{'format': {kind!r}}}; write plans with their method save")
    if type(values.get("version")) is not int or values["version"] != VERSION:
        raise PlanError(
            f"got a {what} of version {values.get('version')!r}, and this multimodal_pad reads version {VERSION}; "
            "plan the shapes again"
        )
    missing = [name for name in (*readers, "cost") if name not in values]
    if missing:
        raise PlanError(f"the {what} lacks {missing}; plan the shapes again")
    fields: dict[str, Any] = {}
    for name, read in {**readers, "cost": _cost}.items():
        try:
            fields[name] = read(values[name], fields)
        except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
            shown = str(values[name])
            raise PlanError(
                f"the {what}'s {name!r} makes no sense: got {shown[:80]}{'...' * (len(shown) > 80)} ({error}); "
                "plan the shapes again"
            ) from None
    fields["cost_name"], fields["cost"] = fields["cost"]
    return fields


def _numbers(value: Any, kinds: tuple[type, ...] = (int, float)) -> np.ndarray:
    """Read a list of numbers, or of lists of them, as an array; no text, no true and false, no NaN."""
    flat = [item for row in value for item in (row if isinstance(row, list) else [row])]
    if not flat or any(type(item) not in kinds for item in flat):
        raise ValueError(f"it must hold numbers ({' or '.join(kind.__name__ for kind in kinds)})")
    array = np.asarray(value, np.float64 if float in kinds else np.int64)
    if not (np.isfinite(array).all() and array.min() >= 0):
        raise ValueError("its numbers must be finite and not below 0")
    return array


def _shapes(value: Any, fields: dict[str, Any]) -> np.ndarray:
    array = _numbers(value, (int,))
    if array.ndim != 2 or array.shape[1] != len(fields["modalities"]) or array.min() < 1 or array.max() > LONGEST:
        raise ValueError(f"it must hold {len(fields['modalities'])} lengths of at least 1 per shape")
    return array


def _per_shape(value: Any, fields: dict[str, Any]) -> np.ndarray:
    array = _numbers(value)
    if array.shape != (len(fields["shapes"]),):
        raise ValueError(f"it must hold a number for each of {len(fields['shapes'])} shapes")
    return array


def _batch_sizes(value: Any, fields: dict[str, Any]) -> np.ndarray:
    array = _numbers(value, (int,))
    if _per_shape(value, fields).min() < 1 or array.max() > LONGEST:
        raise ValueError(f"a batch has 1 to {LONGEST:,} rows")
    return array


def _costs(value: Any, fields: dict[str, Any]) -> np.ndarray:
    array = _per_shape(value, fields)
    if (np.diff(array) < -1e-9 * array[1:]).any():
        raise ValueError("shapes must be in the order of their costs")
    return array


def _share(value: Any, _: Any = None) -> float:
    if not 0 <= float(_numbers([value])[0]) <= 1 + 1e-6:
        raise ValueError("it must be between 0 and 1")
    return float(value)


def _shares(value: Any, _: Any) -> np.ndarray:
    return np.array([_share(item) for item in value], np.float64)


def _share_per_shape(value: Any, fields: dict[str, Any]) -> np.ndarray:
    _per_shape(value, fields)
    return _shares(value, fields)


def _efficiencies(value: Any, fields: dict[str, Any]) -> np.ndarray:
    shares = _shares(value, fields)
    if not len(shares) or abs(shares[-1] - fields["efficiency"]) > 1e-6:
        raise ValueError("the last must be the plan's 'efficiency'")
    return shares


def _bounds(value: Any, fields: dict[str, Any]) -> np.ndarray:
    if len(value) != len(fields["efficiencies"]) or not value:
        raise ValueError("it must hold as many shares as 'efficiencies'")
    return _shares(value, fields)


def _positions(value: Any, fields: dict[str, Any]) -> dict[str, float]:
    if set(value) != {*fields["modalities"], "total"}:
        raise ValueError("it must hold a share for each modality and the total")
    return {name: _share(share) for name, share in value.items()}


def _longest(value: Any, fields: dict[str, Any]) -> dict[str, int]:
    lengths = _numbers([value[name] for name in fields["modalities"]], (int,))
    return dict(zip(fields["modalities"], lengths.tolist(), strict=True))


def _alignment(value: Any, fields: dict[str, Any]) -> dict[str, int]:
    steps = _numbers([value[name] for name in fields["modalities"]], (int,))
    if len(value) != len(steps) or steps.min() < 1 or (fields["shapes"] % steps).any():
        raise ValueError("it must hold a whole number for each modality, of which its lengths are multiples")
    return {name: value[name] for name in fields["modalities"]}


def _budget(value: Any, _: Any) -> float | None:
    if value is not None and _numbers([value])[0] <= 0:
        raise ValueError("it must be above 0, or null")
    return None if value is None else float(value)


def _grouping(value: Any, fields: dict[str, Any]) -> Grouping:
    grouping = as_grouping(_text(*sorted(GROUPINGS))(value, None))
    if grouping.draws_first and (fields["batch_budget"] is not None or np.ptp(fields["batch_sizes"])):
        raise ValueError("random batches have one number of rows, and no budget")
    return grouping


def _text(*allowed: str) -> Callable[[Any, Any], str]:
    def read(value: Any, _: Any) -> str:
        if not isinstance(value, str) or (allowed and value not in allowed):
            raise ValueError(f"it must be {' or '.join(allowed) or 'text'}")
        return value

    return read


def _modalities(value: Any, _: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or any(not isinstance(name, str) for name in value):
        raise ValueError("it must be a list of names")
    return check_names(value)


def _savings(value: Any, _: Any) -> list[dict[str, Any]]:
    names = {"share", "samples", "dropping", "truncating"}
    if not isinstance(value, list) or any(set(saving) != names for saving in value):
        raise ValueError(f"each must hold {sorted(names)}")
    for saving in value:
        _numbers([saving["samples"]], (int,))
        for name in names - {"samples"}:
            _share(saving[name])
    return value


def _cost(value: Any, fields: dict[str, Any]) -> tuple[str, Cost | None]:
    """Return the name of the cost, and the function where it is one of this package's."""
    name = _text()(value["name"], None)
    if name != "TransformerCost":
        return name, PLAIN_COSTS.get(name)
    options = value["options"]
    cost = TransformerCost(**{**options, "modalities": _modalities(options["modalities"], None)})
    if cost.modalities != fields["modalities"]:
        raise PaddingError("its modalities are not the plan's")
    _numbers(cost(fields["shapes"]).tolist())
    return name, cost


def _plain(value: Any) -> Any:
    """Return NumPy's arrays and numbers as JSON has them, and groupings by their names."""
    return value.name if isinstance(value, Grouping) else value.tolist()


def _whole(value: Any, _: Any) -> int:
    return int(_numbers([value], (int,))[0])


def _at_least_one(value: Any, fields: dict[str, Any]) -> int:
    if _whole(value, fields) < 1:
        raise ValueError("it must be at least 1")
    return value


def _room(value: Any, fields: dict[str, Any]) -> Room:
    names = fields["modalities"]
    entries = tuple((target, source, more) for target, source, more in value)
    if entries and [(t, s) for t, s, _ in entries] != sorted((t, s) for t in names for s in names):
        raise ValueError("it must hold [target, source, room] for every two modalities, in order, or nothing")
    if any(type(more) is not int for *_, more in entries):
        raise ValueError("room must be a whole number")
    return entries


PACKING_READERS: dict[str, Reader] = {
    "modalities": _modalities,
    "shapes": _shapes,
    "batch_size": _at_least_one,
    "shares": _at_least_one,
    "batches": _per_shape,
    "extra": _whole,
    "efficiency": _share,
    "position_efficiency": _positions,
    "unrounded_efficiency": _positions,
    "longest": _longest,
    "alignment": _alignment,
    "room": _room,
    "fingerprint": _text(),
}
"""The fields of a packing plan."""

_READERS: dict[str, Reader] = {
    "modalities": _modalities,
    "shapes": _shapes,
    "batch_sizes": _batch_sizes,
    "batch_budget": _budget,
    "costs": _costs,
    "samples": _per_shape,
    "shape_efficiency": _share_per_shape,
    "efficiency": _share,
    "position_efficiency": _positions,
    "efficiencies": _efficiencies,
    "bounds": _bounds,
    "savings": _savings,
    "alignment": _alignment,
    "grouping": _grouping,
    "fingerprint": _text(),
}

FIELDS: Mapping[str, str] = {name: name for name in _READERS} | {"shapes": "lengths"}
"""The fields that a file holds, beside the cost, and the plan's name for each."""
