"""Samples held as they are read: nothing that a source does afterwards with its dicts, lists and arrays counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from multimodal_pad.lengths.arrays import SCALARS
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, Sample, modality_array
from multimodal_pad.lengths.targets import check_keys, position_targets, target_array
from multimodal_pad.lengths.trees import Tree, leaves_of


def held_sample(
    sample: Sample, modalities: Sequence[str], number: int, *, targets: bool = True, copy: bool = False
) -> dict[str, Any]:
    """Return the modalities of a sample as arrays, and its targets, in new dicts.

    Args:
        sample: as it was read.
        modalities: which ones are kept.
        number: of the sample, for errors.
        targets: keep targets, too.
        copy: copy arrays, too, whose memory may still be written to. Without it the sample's own arrays are returned.

    Raises:
        SampleError: a modality is missing or no array, or targets are none, or not one for each position.

    >>> sample = {"text": [3, 1], "speaker": "Joey", "targets": {"emotion": 2}}
    >>> held_sample(sample, ["text"], 0)
    {'text': array([3, 1]), 'targets': {'emotion': 2}}
    """
    held: dict[str, Any] = {}
    for name in modalities:
        value = sample.get(name)
        held[name] = value if type(value) is np.ndarray and value.ndim else modality_array(sample, name, number)
    value = sample.get(TARGETS) if targets else None
    if value is not None:
        held[TARGETS] = value if isinstance(value, SCALARS) else _held(value, repr(TARGETS), number)
    if targets and sample.get(POSITION_TARGETS) is not None:
        whole = {**held, POSITION_TARGETS: sample[POSITION_TARGETS]}
        held[POSITION_TARGETS] = position_targets(whole, modalities, number)
    return {key: _copied(value) for key, value in held.items()} if copy else held


def _held(tree: Tree, where: str, number: int) -> Tree:
    """Return targets whose leaves are arrays, or can't be written to."""
    if type(tree) is np.ndarray or isinstance(tree, SCALARS):
        return tree
    if isinstance(tree, Mapping):
        check_keys(tree, where, number)
        return {key: _held(branch, f"{where}[{key!r}]", number) for key, branch in tree.items()}
    return target_array(tree, where, number)


def _copied(tree: Tree) -> Tree:
    """Return copies of the arrays whose memory may still be written to."""
    if isinstance(tree, Mapping):
        return {key: _copied(branch) for key, branch in tree.items()}
    return tree.copy() if isinstance(tree, np.ndarray) and _writeable(tree) else tree


def share_memory(samples: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether samples have arrays in shared memory, so that one may have been written over another.

    Memory that nothing can write to doesn't count. Arrays of one sample that share memory count too, which does no
    harm where they are copied for it.

    >>> buffer = np.zeros((8, 2))
    >>> share_memory([{"audio": buffer[:3]}, {"audio": buffer[2:6]}])
    True
    >>> share_memory([{"audio": buffer[:3]}, {"audio": buffer[3:6]}])
    False
    """
    values = [value for sample in samples for value in sample.values()]
    arrays = [value for value in values if type(value) is np.ndarray]
    arrays += [leaf for value in values if type(value) is dict for leaf in leaves_of(value) if type(leaf) is np.ndarray]
    if len(set(map(id, arrays))) < len(arrays):
        return True
    views: dict[int, list[np.ndarray]] = {}  # by what they are views of: few, where arrays are many
    for array in arrays:
        base = array.base
        if base is not None:
            views.setdefault(id(base), []).append(array)
    # Memory is NumPy's own array, or another object's: of those two may stand for one, so they all count as one.
    together: dict[int, list[np.ndarray]] = {}
    for group in views.values():
        owner = _owner(group[0])
        if owner.base is None:
            together.setdefault(id(owner), []).extend(group)
        elif owner.flags.writeable:
            together.setdefault(0, []).extend(group)
    if together:
        for array in arrays:
            if array.base is None and id(array) in together:
                together[id(array)].append(array)
    return any(len(group) > 1 and _overlap(group) for group in together.values())


def _owner(array: np.ndarray) -> np.ndarray:
    """Return the array that owns the memory: NumPy's, or else the first view of memory of another object."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def _writeable(array: np.ndarray) -> bool:
    """Return whether the memory of an array may be written to, through whatever array."""
    return _owner(array).flags.writeable


def _overlap(arrays: list[np.ndarray]) -> bool:
    """Return whether two of the arrays have bytes in common, or may have."""
    bounds = np.array([_bounds(array) for array in arrays if array.size]).reshape(-1, 2)
    bounds = bounds[np.argsort(bounds[:, 0])]
    return bool((bounds[1:, 0] < bounds[:-1, 1]).any())


def _bounds(array: np.ndarray) -> tuple[int, int]:
    """Return the addresses of an array's first byte and of the byte after its last."""
    if not array.flags.c_contiguous:
        return np.lib.array_utils.byte_bounds(array)
    start = array.__array_interface__["data"][0]
    return start, start + array.nbytes
