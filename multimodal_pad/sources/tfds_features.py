"""Features of a TFDS dataset that have a length in each example, and their reading."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError


class RaggedFeature:
    """A feature whose first dimension is not fixed, and all others are.

    That is a ``Tensor`` of such a shape; a ``Sequence``, or a ``Dataset`` of steps, of tensors of one shape; or one of
    the features in a ``Sequence`` or ``Dataset`` of dicts.

    Args:
        features: of the dataset.
        key: the path of the feature, ``"steps/obs"``.
        where: the dataset and its split, for errors.

    Raises:
        SourceError: there is no such feature, it is not ragged, or holds no numbers.
    """

    def __init__(self, features: Any, key: str, where: str) -> None:
        check_key(features, key, where)
        info = _tensor_info(features, key)
        shape = getattr(info, "shape", None)
        if isinstance(info, Mapping):
            inner = [f"{key}/{name}" for name in sorted(info)]
            raise SourceError(f"{where}: the feature {key!r} holds several; name one of {inner}")
        if shape is None or not _is_ragged(info):
            what = "text" if shape is not None and np.dtype(info.np_dtype).kind not in "biuf" else f"of shape {shape}"
            raise SourceError(
                f"{where}: the feature {key!r} is {what}, not ragged; take numbers of which the first dimension is "
                "None, and no other: a Tensor, or a Sequence or Dataset of tensors of one shape"
            )
        self.key, self._shape = key, shape[1:]
        dtype = np.dtype(info.np_dtype)
        self._dtype = np.dtype(np.float32) if dtype.kind == "f" else dtype

    def length(self, example: Any) -> int:
        """Return its number of positions in an example, without reading them."""
        for part in self.key.split("/"):
            if not isinstance(example, Mapping):
                break  # steps, of which each has the rest of the path
            example = example[part]
        return 0 if example is None else len(example)

    def array(self, example: Any, seen: dict[str, Any]) -> np.ndarray:
        """Return its values in an example, ``(length, *shape)``: float32, or whole numbers as they are.

        Args:
            example: of the dataset.
            seen: steps of this example that were read before, by path.
        """
        value = value_of(example, self.key, seen)
        if value is None or not len(value):
            return np.zeros((0, *self._shape), self._dtype)
        return np.asarray(value if isinstance(value, np.ndarray) else list(value)).astype(self._dtype)


def top_features(features: Any, where: str) -> dict[str, str]:
    """Return the ragged features at the top, by the alphabet, as modalities of the same names.

    Raises:
        SourceError: there is none; those further down are named.
    """
    found = [key for key in sorted(features) if _is_ragged(_tensor_info(features, key))]
    if not found:
        inner = [key for key in _paths(features) if _is_ragged(_tensor_info(features, key))]
        example = f" such as features={{{inner[0].split('/')[-1]!r}: {inner[0]!r}}}" if inner else ""
        raise SourceError(
            f"{where}: no feature at the top is ragged; "
            + (f"name some,{example}: there are {inner}" if inner else f"nor is any other of {_keys(features)}")
        )
    return {key: key for key in found}


def check_key(features: Any, key: str, where: str) -> None:
    """Raise a SourceError that lists all features where there is none of this path."""
    for part in key.split("/"):
        if part not in _keys(features):
            raise SourceError(f"{where}: has no feature {key!r}; it has {_keys(features)}")
        features = features[part]


def value_of(example: Any, key: str, seen: dict[str, Any] | None = None) -> Any:
    """Return an example's value at a path; for steps, the values of all."""
    seen, path = {} if seen is None else seen, ""
    for part in key.split("/"):
        if isinstance(example, Mapping):
            example = example[part]
        else:
            if path not in seen:
                seen[path] = list(example)  # decodes every step
            example = [step[part] for step in seen[path]]
        path = f"{path}/{part}"
    return example


def _tensor_info(features: Any, key: str) -> Any:
    """Return shape and dtype at a path, by the outermost sequence on it; a dict of such; None where there is none."""
    from tensorflow_datasets.core import features as kinds

    first, *rest = key.split("/")
    feature = features[first]
    while rest and isinstance(feature, kinds.FeaturesDict):
        feature, rest = feature[rest[0]], rest[1:]
    try:
        info: Any = feature.get_tensor_info()
    except (AttributeError, NotImplementedError):
        return None
    for part in rest:
        info = info[part]
    if isinstance(feature, kinds.Dataset) and not isinstance(info, Mapping):
        return kinds.TensorInfo(shape=(None, *info.shape), dtype=info.np_dtype)
    return info


def _is_ragged(info: Any) -> bool:
    """Return whether the first dimension is not fixed, all others are, and values are numbers."""
    shape = getattr(info, "shape", None)
    return bool(shape) and shape[0] is None and None not in shape[1:] and np.dtype(info.np_dtype).kind in "biuf"


def _keys(features: Any) -> list[str]:
    return sorted(features.keys()) if hasattr(features, "keys") else []


def _paths(features: Any, above: str = "") -> list[str]:
    """Return all paths, from the top."""
    return [path for key in _keys(features) for path in [f"{above}{key}", *_paths(features[key], f"{above}{key}/")]]
