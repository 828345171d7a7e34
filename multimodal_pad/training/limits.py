"""Limits of the values in a batch, by model and loss: checked on the host, where the sample can be named."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from multimodal_pad.errors import SampleError, TrainingError
from multimodal_pad.layouts.layout import BatchOfLayout
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS
from multimodal_pad.lengths.trees import Tree, named_leaves
from multimodal_pad.training.loss import Loss, binary_cross_entropy, cross_entropy

Names = Callable[[], Sequence[str] | None]
"""A function that names a batch's real samples in order, or returns None where they have no numbers."""


class Limit(NamedTuple):
    """The range of an array's values.

    Attributes:
        low: the least.
        high: the largest.
        kind: a word for such a value.
        advice: the reason, and what to do.
    """

    low: int
    high: int
    kind: str
    advice: str

    def holds(self, array: np.ndarray) -> bool:
        """Return whether all values are in the range; False for NaN."""
        return not array.size or bool(array.min() >= self.low and array.max() <= self.high)

    def first_beyond(self, array: np.ndarray) -> Any:
        """Return the first value that is out of the range."""
        return array[~((array >= self.low) & (array <= self.high))].flat[0]


def check_dtypes(example: BatchOfLayout) -> None:
    """Raise a TrainingError where arrays of a batch are of a dtype that JAX doesn't compute in, such as text."""
    for where, array in _arrays(example).items():
        try:
            taken = jax.dtypes.canonicalize_dtype(array.dtype)
        except TypeError:
            taken = None
        if taken is None or not (taken.kind == "b" or jnp.issubdtype(taken, np.number)):
            raise TrainingError(
                f"the batches have {where} of dtype {array.dtype}, and JAX computes with numbers and bools; give class "
                "numbers for names, as np.int32(names.index(label))"
            )


class Limits:
    """The limits of the arrays of a training's batches, by where these are in a sample.

    These are class numbers and probabilities, for ``loss=cross_entropy`` and ``loss=binary_cross_entropy``, token ids
    for a ``MultimodalTransformer``, and whole numbers of 64 bits, which JAX takes in 32.

    Args:
        model: in training.
        loss: of outputs and targets; None where a ``loss_fn`` calls the model.
        example: any batch.
        classes: how many outputs the model has, where that is known.

    Raises:
        TrainingError: a modality is not as the model takes it.

    >>> from flax import nnx
    >>> from multimodal_pad import pad_samples
    >>> batch = pad_samples([{"audio": np.ones((2, 3), np.float32), "targets": label} for label in (0, 3)])
    >>> limits = Limits(nnx.Linear(3, 3, rngs=nnx.Rngs(0)), cross_entropy, batch, classes=3)
    >>> limits.check(batch, lambda: ["sample 17", "sample 5"])
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 5, 'targets': got the class number 3; class numbers run from 0 to 2, \
since the model has 3 outputs: number the classes from 0, or make the model with more outputs
    """

    def __init__(self, model: Any, loss: Loss | None, example: BatchOfLayout, classes: int | None = None) -> None:
        arrays = _arrays(example)
        self._limits = {where: limit for where, x in arrays.items() if (limit := _of_dtype(x.dtype))}
        from multimodal_pad.models import MultimodalTransformer  # exported programs run without models

        if isinstance(model, MultimodalTransformer):
            self._limits |= _of_inputs(model.config.modalities, example)
            classes = classes or (model.config.num_outputs if type(model) is MultimodalTransformer else None)
        wanted = _targets_of_loss(arrays)
        if loss is cross_entropy and classes is not None:
            self._limits |= dict.fromkeys(wanted, _class_numbers(classes))
        elif loss is binary_cross_entropy:
            self._limits |= dict.fromkeys(wanted, _PROBABILITY)

    def check(self, batch: BatchOfLayout, names: Names) -> None:
        """Raise a SampleError that names the first sample of the batch that holds a value beyond its limit."""
        arrays = _arrays(batch)
        beyond = [where for where, limit in self._limits.items() if not limit.holds(arrays[where])]
        if not beyond:
            return
        samples = batch.layout.take_apart(batch)  # padding is not checked
        for row, sample in enumerate(samples):
            arrays = _arrays_of_sample(sample)
            for where in beyond:
                limit = self._limits[where]
                if not limit.holds(arrays[where]):
                    known, value = names(), limit.first_beyond(arrays[where])
                    named = known[row] if known is not None else f"sample {row} of a batch"
                    more = _IGNORED if limit.kind == _CLASS and value < 0 else ""
                    raise SampleError(f"{named}, {where}: got the {limit.kind} {value}; {limit.advice}{more}")


_PROBABILITY = Limit(
    0,
    1,
    "target",
    "binary_cross_entropy takes 0 or 1, or a probability between: of -1 and 1 give (label + 1) / 2, of class numbers "
    "rows of zeros with a 1 for each label that holds",
)


_CLASS = "class number"

_IGNORED = (
    ". To leave some out, as others do by ignore_index, give loss_fn=, which has them False in the mask of its loss, "
    "and weight_fn=, which counts the rest"
)


def _class_numbers(count: int) -> Limit:
    return Limit(
        0,
        count - 1,
        _CLASS,
        f"class numbers run from 0 to {count - 1}, since the model has {count} outputs: number the classes from 0, or "
        "make the model with more outputs",
    )


def _of_dtype(dtype: np.dtype) -> Limit | None:
    """Return the limit of whole numbers that JAX takes in another dtype."""
    taken = jax.dtypes.canonicalize_dtype(dtype)
    if dtype.kind not in "iu" or taken == dtype:
        return None
    low, high = (int(limit) for limit in (np.iinfo(taken).min, np.iinfo(taken).max))
    return Limit(low, high, "value", f"JAX takes {dtype} as {taken}, which holds {low} to {high}: give smaller numbers")


def _of_inputs(modalities: Mapping[str, Any], example: BatchOfLayout) -> dict[str, Limit]:
    """Return the limits of token ids.

    Raises:
        TrainingError: a modality is missing, or is of another kind or width than the model takes.
    """
    limits = {}
    masks = example.masks
    for name, takes in modalities.items():
        if name not in example.features:
            raise TrainingError(
                f"the model takes {list(modalities)}, and the batches have {sorted(example.features)}; "
                "give both the same modalities"
            )
        array = example.features[name]
        shape, tokens = array.shape[masks[name].ndim :], takes.vocabulary_size is not None
        if tokens and (math.prod(shape) != 1 or array.dtype.kind not in "iu"):
            raise TrainingError(
                f"the batches have {name!r} of {array.dtype} and feature shape {shape}, and the model takes token "
                "ids: give ints of shape (length,), or ModalityConfig(feature_width=...) for features"
            )
        if not tokens and math.prod(shape) != takes.feature_width:
            raise TrainingError(
                f"the batches have {name!r} of feature shape {shape}, and the model takes ({takes.feature_width},); "
                "make it with ModalityConfig(feature_width=...) of that width, or with vocabulary_size for token ids"
            )
        if takes.vocabulary_size is not None:
            last = takes.vocabulary_size - 1
            advice = f"ids run from 0 to {last}: map others to one for unknown tokens, or make the vocabulary larger"
            limits[repr(name)] = Limit(0, last, "token id", advice)
    return limits


def _targets_of_loss(arrays: Mapping[str, np.ndarray]) -> list[str]:
    """Return the places of the targets that a loss of outputs takes: samples' before positions'."""
    of_samples = [where for where in arrays if where.startswith(repr(TARGETS))]
    return of_samples or [where for where in arrays if where.startswith(repr(POSITION_TARGETS))]


def _arrays(batch: BatchOfLayout) -> dict[str, np.ndarray]:
    return _by_place(batch.features, batch.targets, batch.position_targets)


def _arrays_of_sample(sample: Mapping[str, Any]) -> dict[str, np.ndarray]:
    features = {name: x for name, x in sample.items() if name not in (TARGETS, POSITION_TARGETS)}
    return _by_place(features, sample.get(TARGETS), sample.get(POSITION_TARGETS))


def _by_place(features: Mapping[str, Any], targets: Tree, position_targets: Tree) -> dict[str, np.ndarray]:
    """Return all arrays by their places, as errors name them."""
    found = {repr(name): x for name, x in features.items()}
    found |= named_leaves(targets, repr(TARGETS))
    found |= named_leaves(position_targets, repr(POSITION_TARGETS))
    return {where: np.asarray(x) for where, x in found.items()}
