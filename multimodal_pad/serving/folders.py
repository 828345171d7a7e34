"""The folder of a predictor: a description in JSON, and the model's arrays in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.reading import read_npz
from multimodal_pad.serving.inputs import Kind
from multimodal_pad.serving.running import PieceRunner
from multimodal_pad.training.described import describe_policy, describe_statistics, policy_of, statistics_of

VERSION = 1
ARRAYS = "parameters.npz"


def describe(predictor: PieceRunner) -> dict[str, Any]:
    """Return all of a predictor but its model, as JSON values.

    Raises:
        PaddingError: no sample was seen yet.
    """
    return {
        "policy": describe_policy(predictor.policy),
        "batch_size": predictor.batch_size,
        "inputs": {
            name: {**kind._asdict(), "feature_shape": list(kind.feature_shape), "dtype": str(kind.dtype)}
            for name, kind in predictor.inputs.items()
        },
        "standardized": describe_statistics(predictor.standardize),
        "vocabularies": predictor.vocabularies,
        "options": {
            "positions": predictor.positions
            if isinstance(predictor.positions, str | None)
            else dict(predictor.positions),
            "long_samples": predictor.long_samples,
            "check_finite": predictor.check_finite,
            "pad_value": _plain(predictor.pad_value),
            "smaller": list(predictor.smaller),
        },
    }


class Loaded(NamedTuple):
    """The parts of a predictor from a folder.

    Attributes:
        model: the model, or a program.
        plan: the plan, or a policy.
        options: of the predictor.
        kinds: the kinds of its inputs; empty where they are not known.
    """

    model: Any
    plan: Any
    options: dict[str, Any]
    kinds: dict[str, Kind]


def loaded(model: Any, description: Mapping[str, Any], where: Path, options: Mapping[str, Any]) -> Loaded:
    """Make the parts described, with the caller's options before those described.

    Raises:
        PaddingError: a description that makes no sense, or a policy that only its own code can make.
    """
    try:
        chosen = {**description.get("options", {}), "vocabularies": description.get("vocabularies"), **options}
        plan = chosen.pop("plan", None)
        if "standardize" not in options:
            chosen["standardize"] = statistics_of(description.get("standardized", {}))
        if plan is None:
            plan = policy_of(description.get("policy", {}))
            chosen.setdefault("batch_size", description.get("batch_size"))
        kinds = {name: _kind(fields) for name, fields in description.get("inputs", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PaddingError(f"{where}: {error}") from None
    sizes = {name: kind.vocabulary_size for name, kind in kinds.items() if kind.vocabulary_size is not None}
    if sizes:
        chosen.setdefault("vocabulary_sizes", sizes)
    return Loaded(model, plan, chosen, kinds)


def write_description(folder: Path, name: str, kind: str, description: Mapping[str, Any]) -> None:
    """Write the JSON of a folder."""
    import flax

    import multimodal_pad

    versions = {"multimodal_pad": multimodal_pad.__version__, "jax": jax.__version__, "flax": flax.__version__}
    values = {"format": kind, "version": VERSION, **description, "written_with": versions}
    (folder / name).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_description(path: Path, kind: str) -> dict[str, Any]:
    """Read the JSON that :func:`write_description` wrote.

    Raises:
        PaddingError: no such file, or one of another kind.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PaddingError(f"{path}: no such file; name the folder of a predictor") from None
    except (ValueError, RecursionError) as error:
        raise PaddingError(f"{path}: not JSON ({error}); save the predictor again") from None
    found = (values.get("format"), values.get("version")) if isinstance(values, dict) else None
    if found != (kind, VERSION):
        raise PaddingError(f"{path}: is {found}, not {(kind, VERSION)}; save the predictor again")
    return values


def write_arrays(path: Path, tree: Any) -> list[dict[str, str]]:
    """Write the arrays of nested dicts, each under its name, such as ``params/head/kernel``; return names and dtypes.

    Raises:
        PaddingError: two have one name.
    """
    named = [(_array_name(place), np.asarray(x)) for place, x in jax.tree_util.tree_leaves_with_path(tree)]
    names = [name for name, _ in named]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PaddingError(f"got two arrays of the name {twice!r}; give the model's attributes names that differ")
    # NumPy writes dtypes that it lacks, such as bfloat16, as plain bytes.
    arrays: dict[str, Any] = {
        name: x if x.dtype.kind in "biufc" else x.view(f"V{x.dtype.itemsize}") for name, x in named
    }
    np.savez(path, **arrays)
    return [{"name": name, "dtype": str(x.dtype)} for name, x in named]


def read_arrays(path: Path, described: Sequence[Mapping[str, str]]) -> dict[str, np.ndarray]:
    """Read the arrays that :func:`write_arrays` wrote, by name and in their order.

    Raises:
        PaddingError: the file is missing, damaged, or lacks one of them.
    """
    try:
        found = read_npz(path, [each["name"] for each in described])
        return {each["name"]: _as(found[each["name"]], np.dtype(jax.numpy.dtype(each["dtype"]))) for each in described}
    except FileNotFoundError:
        raise PaddingError(f"{path}: no such file; save the predictor again") from None
    except (ValueError, KeyError, TypeError) as error:
        raise PaddingError(f"{path}: damaged, or not of this predictor ({error}); save it again") from None


def filled(tree: Any, arrays: Mapping[str, np.ndarray], where: str) -> Any:
    """Return nested dicts with their arrays replaced by these, by name.

    Raises:
        PaddingError: one has another shape or dtype, or is not there; the first one is named.
    """
    here = {_array_name(place): np.asarray(x) for place, x in jax.tree_util.tree_leaves_with_path(tree)}
    for name in [*here, *arrays]:
        one, other = arrays.get(name), here.get(name)
        if one is None or other is None or (one.shape, one.dtype) != (other.shape, other.dtype):
            got, has = (f"{x.dtype}{list(x.shape)}" if x is not None else "nothing" for x in (one, other))
            raise PaddingError(
                f"{where} has {got} at {name}, and the model has {has}; give model=, one that is made like the one "
                "that was saved"
            )
    return jax.tree.unflatten(jax.tree.structure(tree), [arrays[name] for name in here])


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _kind(fields: Mapping[str, Any]) -> Kind:
    dtype = np.dtype(jax.dtypes.canonicalize_dtype(jax.numpy.dtype(fields["dtype"])))
    return Kind(tuple(fields["feature_shape"]), dtype, fields.get("vocabulary_size"))


def _as(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    return array.view(dtype) if array.dtype.kind == "V" else array


def _array_name(place: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")
