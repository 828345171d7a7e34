"""Targets of a sample, and of each position of a modality."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.arrays import array_of_positions, as_array
from multimodal_pad.lengths.samples import POSITION_TARGETS, Sample
from multimodal_pad.lengths.trees import Tree, map_of_modalities, named_leaves


def target_arrays(sample: Sample, key: str, index: int) -> dict[str, np.ndarray]:
    """Return all arrays under ``"targets"`` or ``"position_targets"`` by where they are; none where it has no such key.

    Raises:
        SampleError: one of them is not an array of one shape, or a dict is empty or has other keys than strings.

    >>> target_arrays({"text": [3, 1], "targets": {"emotion": 2}}, "targets", 0)
    {"'targets'['emotion']": array(2)}
    """
    if sample.get(key) is None:
        return {}
    check_keys(sample[key], repr(key), index)
    return {where: target_array(leaf, where, index) for where, leaf in named_leaves(sample[key], repr(key)).items()}


def target_array(leaf: Any, where: str, index: int) -> np.ndarray:
    """Return an array of targets of sample number ``index``, in the byte order of this machine.

    Raises:
        SampleError: it is not an array of one shape, or none of numbers that batches hold; the rule is that of
            features (:func:`~multimodal_pad.lengths.dtypes.batch_dtype`).

    >>> target_array("happy", "'targets'", 3)
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 3, 'targets': got dtype <U5, and a batch holds bool, whole numbers of 8 \
to 64 bits, float16, float32, float64 and bfloat16; give whole numbers for text: ids of its tokens as a feature, the \
number of a class as a target
    """
    return as_array(leaf, index, where)


def check_keys(tree: Tree, where: str, index: int) -> None:
    """Raise a SampleError where a dict is empty or has other keys than strings."""
    if not isinstance(tree, Mapping):
        return
    if not tree or not all(isinstance(name, str) for name in tree):
        raise SampleError(
            f"sample {index}, {where}: got a dict with the keys {list(tree)}; give at least one, and strings"
        )
    for name, branch in tree.items():
        check_keys(branch, f"{where}[{name!r}]", index)


def position_targets(sample: Sample, modalities: Sequence[str], index: int) -> dict[str, Tree] | None:
    """Return the targets of a sample's positions as arrays, held against its modalities; None where it has none.

    Raises:
        SampleError: they are of no modality of these, or not one for each position that the modality has in this
            sample.

    >>> position_targets({"text": [7, 8, 9], "audio": None, "position_targets": {"audio": []}}, ["text", "audio"], 0)
    {'audio': array([], dtype=float32)}
    >>> position_targets({"text": [7, 8, 9], "position_targets": {"text": [0, 1]}}, ["text"], 4)
    Traceback (most recent call last):
    multimodal_pad.errors.SampleError: sample 4, 'position_targets'['text']: got shape (2,), and 'text' has 3 \
positions; give one target for each
    """
    given = sample.get(POSITION_TARGETS)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise SampleError(
            f"sample {index}, {POSITION_TARGETS!r}: got {type(given).__name__}; give {{modality: array (length, ...)}}"
        )
    unknown = [name for name in given if name not in modalities]
    if unknown:
        raise SampleError(
            f"sample {index}, {POSITION_TARGETS!r}: got targets for the positions of {unknown}, and the modalities of "
            f"the batch are {list(modalities)}; have those in the batch too, or leave their targets out"
        )
    check_keys(given, repr(POSITION_TARGETS), index)

    def arrays(tree: Tree, where: str, name: str, length: int) -> Tree:
        if isinstance(tree, Mapping):
            return {key: arrays(branch, f"{where}[{key!r}]", name, length) for key, branch in tree.items()}
        array = array_of_positions(tree, index, where)
        if array.shape[:1] != (length,):
            raise SampleError(
                f"sample {index}, {where}: got shape {array.shape}, and {name!r} has {length} positions; give one "
                "target for each"
            )
        return array

    return {
        name: arrays(tree, f"{POSITION_TARGETS!r}[{name!r}]", name, 0 if sample[name] is None else len(sample[name]))
        for name, tree in given.items()
    }


def cut_position_targets(given: Mapping[str, Tree], lengths: Mapping[str, int]) -> dict[str, Tree]:
    """Return copies of the targets of the first positions, as many as are left of each modality."""
    return map_of_modalities(lambda name, leaf: np.array(leaf[: lengths[name]]), given) or {}
