"""The targets of a batch: the samples' trees of arrays as one tree of arrays, and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeVar

import numpy as np

from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.buffers import aligned_empty
from multimodal_pad.lengths.arrays import SCALARS
from multimodal_pad.lengths.dtypes import is_kept
from multimodal_pad.lengths.kinds import all_of_kind, common_kind
from multimodal_pad.lengths.samples import POSITION_TARGETS, TARGETS, Sample
from multimodal_pad.lengths.targets import check_keys, position_targets, target_array
from multimodal_pad.lengths.trees import Tree, map_of_modalities, map_tree

T = TypeVar("T")


def stack_targets(samples: Sequence[Sample], rows: int, ids: Sequence[int]) -> Tree:
    """Stack the targets of all samples, each array ``(rows, ...)`` with zeros behind them; None where there are none.

    Raises:
        SampleError: some samples have targets and others none, or with other keys, of another shape or dtype.
    """
    if not _all_have(samples, TARGETS, ids):
        return None
    return map_tree(lambda column: _stack(column, rows), _columns([s[TARGETS] for s in samples], repr(TARGETS), ids, 0))


def lay_out_position_targets(
    samples: Sequence[Sample],
    arrays: Mapping[str, list[np.ndarray]],
    ids: Sequence[int],
    place: Callable[[str, list[np.ndarray]], np.ndarray],
) -> dict[str, Tree] | None:
    """Lay out targets of positions as the positions are laid out; None where there are none.

    Args:
        samples: as they were given.
        arrays: what is laid out of each modality. Where that is cut, so are the targets.
        ids: numbers of the samples, for errors.
        place: lays out one array per sample, as the arrays of a modality are.

    Raises:
        SampleError: some samples have such targets and others none, or with other keys, of another shape or dtype; they
            are of a modality that is not laid out, or not one for each position.
    """
    if not _all_have(samples, POSITION_TARGETS, ids):
        return None
    names = tuple(arrays)
    trees = [position_targets(sample, names, number) for sample, number in zip(samples, ids, strict=True)]
    columns = _columns(trees, repr(POSITION_TARGETS), ids, 1)

    def lay_out(name: str, column: list[np.ndarray]) -> np.ndarray:
        return place(name, [target[: len(x)] for target, x in zip(column, arrays[name], strict=True)])

    return map_of_modalities(lay_out, columns)


def give_targets_back(
    samples: Sequence[dict[str, Any]],
    batch: Any,
    rows: Sequence[int] | np.ndarray,
    cut: Callable[[str, np.ndarray, int], np.ndarray],
) -> None:
    """Put the targets of a batch into its samples.

    Args:
        samples: those in ``rows``, of which each gets its own.
        batch: of NumPy or JAX arrays.
        rows: numbers of the samples in the batch.
        cut: ``(modality, array, row)``: a sample's part of an array of positions.
    """
    targets = map_tree(np.asarray, batch.targets)
    of_positions = map_of_modalities(lambda _, x: np.asarray(x), batch.position_targets)
    for sample, row in zip(samples, rows, strict=True):
        if targets is not None:
            sample[TARGETS] = map_tree(itemgetter(row), targets)
        if of_positions is not None:
            sample[POSITION_TARGETS] = map_of_modalities(lambda m, x, row=row: cut(m, x, row), of_positions)


def _all_have(samples: Sequence[Sample], key: str, ids: Sequence[int]) -> bool:
    """Return whether all samples have the key; False where none has it.

    Raises:
        SampleError: some have it and others don't.
    """
    have = [sample.get(key) is not None for sample in samples]
    if all(have) or not any(have):
        return have[0]
    raise SampleError(f"sample {ids[have.index(False)]} has no {key!r} and others have; give them to all or none")


def _columns(trees: Sequence[Tree], where: str, ids: Sequence[int], axes: int) -> Tree:
    """Return one tree of lists, each with an array per sample, which are alike but for the first ``axes`` axes.

    Raises:
        SampleError: a tree is not like the first one's; names the sample and the place.
    """
    first = trees[0]
    if isinstance(first, Mapping):
        for tree, number in zip(trees, ids, strict=True):
            if not isinstance(tree, Mapping) or tree.keys() != first.keys():
                has = f"the keys {list(tree)}" if isinstance(tree, Mapping) else "no keys"
                raise SampleError(
                    f"sample {number}, {where}: has {has}, but sample {ids[0]} has {list(first)}; give all the same"
                )
        check_keys(first, where, ids[0])
        return {key: _columns([tree[key] for tree in trees], f"{where}[{key!r}]", ids, axes) for key in first}
    arrays: list[np.ndarray] = []
    if all(kind is np.ndarray or issubclass(kind, SCALARS) for kind in set(map(type, trees))):
        arrays = list(map(np.asarray, trees))
        kinds = [(array.shape[axes:], array.dtype) for array in arrays]
        if kinds.count(kinds[0]) == len(kinds) and is_kept(kinds[0][1]) and not axes:
            return arrays  # the usual case
    arrays = [target_array(tree, where, number) for tree, number in _each(trees, ids)]
    if axes and not all(map(len, arrays)):
        arrays = all_of_kind(arrays, common_kind(arrays))
    kinds = [(array.shape[axes:], array.dtype) for array in arrays]
    one = next((place for place, array in enumerate(arrays) if axes and len(array)), 0)
    for kind, number in _each(kinds, ids):
        if kind != kinds[one]:
            raise SampleError(
                f"sample {number}, {where}: got shape {kind[0]} and dtype {kind[1]}, but sample {ids[one]} has "
                f"{kinds[one][0]} and {kinds[one][1]}; give all the same"
            )
    return arrays


def _each(values: Iterable[T], ids: Sequence[int]) -> Iterable[tuple[T, int]]:
    """Return pairs of each sample's value and its number."""
    return zip(values, ids, strict=True)


def _stack(arrays: list[np.ndarray], rows: int) -> np.ndarray:
    out = aligned_empty((rows, *arrays[0].shape), arrays[0].dtype)
    out[: len(arrays)] = arrays
    out[len(arrays) :] = 0
    return out
