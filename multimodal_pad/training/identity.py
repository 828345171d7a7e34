"""The identity of a training and its model, without values that are learned or tuned: compared with checkpoints."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import math
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from typing import Any

import flax
import jax
import numpy as np
import optax
from flax import nnx

from multimodal_pad.errors import TrainingError

IDENTITY = "identity"
"""The key of a checkpoint's record: see :func:`describe_identity`."""

STRUCTURE = "structure"
"""The key of a model's description: see :func:`describe_structure`."""

_MODES = ("deterministic", "use_running_average")
"""Attributes that ``train()`` and ``eval()`` set."""

_HOW = ("attention", "precision")
"""Attributes that choose how something is computed, and not what: they may change with the device."""

_IN_TRAINING = (*_HOW, "dropout_rate", "rate", "dtype", "param_dtype")
"""Attributes that may differ between the model in training and the one that predicts."""

_LIBRARIES = {"flax": flax.__version__, "optax": optax.__version__}


def describe_structure(model: nnx.Module) -> dict[str, Any]:
    """Return the classes of a model's modules and their plain attributes, as JSON values by place; not its arrays.

    A config that is a dataclass is compared by field, and the order of a mapping counts.

    >>> found = describe_structure(nnx.Sequential(nnx.Dropout(0.5), jax.nn.relu))
    >>> found[""], found["layers.0"], found["layers.0.rate"], found["layers.1"]
    ('flax Sequential', 'flax Dropout', 0.5, 'relu')
    """
    found: dict[str, Any] = {}
    whole: list[str] = []
    for path, module in sorted(nnx.iter_modules(model), key=lambda item: len(item[0])):
        place = ".".join(map(str, path))
        if any(place.startswith(above) for above in whole):
            continue
        if _says_all(module):  # its inside follows from the config, and may change with a version
            whole.append(f"{place}." if place else "")
        root, name = type(module).__module__.partition(".")[0], type(module).__qualname__
        found[place] = f"flax {name}" if root == "flax" else name
        for attribute, value in vars(module).items():
            if attribute.startswith(("_pytree__", "_object__")) or attribute in _MODES:
                continue
            if not isinstance(value, nnx.Variable | nnx.Module):
                found |= dict(_flat(f"{place}.{attribute}".removeprefix("."), value))
    return found


def describe_identity(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the identity of a training, beside its model and its batches, as JSON values.

    Functions are compared by their names, an optimizer by those of its transformations: rates, decays and schedules
    can be changed from one start to the next.

    >>> describe_identity({"loss": optax.l2_loss, "optimizer": optax.adamw(0.1)})["optimizer"]
    ['scale_by_adam', 'add_decayed_weights', 'scale']
    """
    described = {
        name: _transformations(value) if name == "optimizer" else _value(value) for name, value in options.items()
    }
    return {**described, "libraries": _LIBRARIES}


def check_identity(saved: Mapping[str, Any], here: Mapping[str, Any], where: str) -> None:
    """Compare the identity of a training that goes on with the one that was saved.

    Raises:
        TrainingError: names what differs.
    """
    same_library = saved.get("libraries", {}).get("optax") == _LIBRARIES["optax"]
    names = [name for name in here if name != "libraries" and (name != "optimizer" or same_library)]
    found = [
        f"{name} is {here[name]!r} here and {saved.get(name)!r} there"
        for name in names
        if here[name] != saved.get(name)
    ]
    _refuse(found, f"{where} is of another model or optimizer", "go on with the same, or name another folder")


def check_structure(
    saved: Mapping[str, Any], here: Mapping[str, Any], where: str, libraries: Mapping[str, str], *, training: bool
) -> None:
    """Compare the structure of a model with the one that was saved.

    Args:
        saved: by :func:`describe_structure`, and so is ``here``.
        here: of the model.
        where: names what was saved, for errors.
        libraries: versions when it was saved: with another Flax, attributes that only one of the two has don't count.
        training: whether the model goes on to be trained, and not only to predict.

    Raises:
        TrainingError: names what differs.

    >>> one, other = (describe_structure(nnx.Dropout(rate)) for rate in (0.5, 0.1))
    >>> check_structure(one, other, "it", {}, training=False)
    >>> check_structure(one, other, "it", {}, training=True)
    Traceback (most recent call last):
    multimodal_pad.errors.TrainingError: it is of another model or optimizer: the model's rate is 0.1 here and 0.5 \
there; make them like those, or name another folder
    """
    ignored = _HOW if training else _IN_TRAINING
    alike = libraries.get("flax", flax.__version__) == flax.__version__
    found = []
    for place in dict.fromkeys([*here, *saved]):
        if _is_ignored(place, ignored) or here.get(place) == saved.get(place):
            continue
        if not alike and (place not in here or place not in saved) and _is_of_flax(place, here):
            continue
        what = f"the model's {place}" if place else "the model"
        found.append(f"{what} is {here.get(place)!r} here and {saved.get(place)!r} there")
    if training:
        _refuse(found, f"{where} is of another model or optimizer", "make them like those, or name another folder")
    else:
        _refuse(found, f"{where} is of another model", "give one that is made like it")


def _refuse(found: list[str], what: str, instead: str) -> None:
    if found:
        more = f" (and {len(found) - 4} more)" if len(found) > 4 else ""
        raise TrainingError(f"{what}: {', '.join(found[:4])}{more}; {instead}")


def _says_all(module: Any) -> bool:
    """Return whether a module follows from its config alone."""
    from multimodal_pad.models import MultimodalTransformer

    return type(module) is MultimodalTransformer


def _is_ignored(place: str, ignored: Collection[str]) -> bool:
    return place.rpartition(".")[2] in ignored


def _is_of_flax(place: str, here: Mapping[str, Any]) -> bool:
    return str(here.get(place.rpartition(".")[0], "")).startswith("flax ")


def _flat(place: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a value by places: fields of dataclasses and items of mappings have one each. None is as good as absent."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from _flat(f"{place}.{field.name}", getattr(value, field.name))
    elif isinstance(value, Mapping):
        yield place, [str(key) for key in value]
        for key, item in value.items():
            yield from _flat(f"{place}.{key}", item)
    elif value is not None:
        yield place, _value(value)


def _value(value: Any) -> Any:
    """Return a value, or its name, as JSON that is the same in every process."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, partial):
        return [_value(value.func), _value(value.args), [[key, _value(item)] for key, item in value.keywords.items()]]
    if isinstance(value, np.dtype) or (isinstance(value, type) and hasattr(value, "dtype")):
        return str(np.dtype(value))
    if isinstance(value, jax.Array | np.ndarray):
        return f"{value.dtype}{list(value.shape)}"
    return str(getattr(value, "__qualname__", None) or getattr(value, "__name__", None) or type(value).__qualname__)


def _transformations(optimizer: Any) -> list[str]:
    """Return the names of the functions of optax, or of others, that made the parts of an optimizer."""
    found: dict[str, None] = {}
    _look_for_updates(optimizer.update, found, set())
    return [name for name in found if name not in ("chain", "with_extra_args_support")]


def _look_for_updates(value: Any, found: dict[str, None], seen: set[int]) -> None:
    """Add what made ``value``, a function or a container of them, and what made the functions that it closes over."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, Mapping):
        value = tuple(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            _look_for_updates(item, found, seen)
    elif isinstance(value, partial):
        _look_for_updates((value.func, value.args, value.keywords), found, seen)
    elif inspect.ismethod(value):
        found[type(value.__self__).__qualname__] = None
        _look_for_updates(vars(value.__self__), found, seen)
    elif inspect.isfunction(value):
        maker, _, name = value.__qualname__.rpartition(".<locals>.")
        if name.startswith("update"):
            found[maker.rpartition(".<locals>.")[0] or maker or name] = None
        for cell in value.__closure__ or ():
            try:
                content = cell.cell_contents
            except ValueError:  # not set yet
                continue
            _look_for_updates(content, found, seen)
