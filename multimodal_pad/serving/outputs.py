"""Outputs of a batch to outputs of its samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import BatchOfLayout
from multimodal_pad.serving.pieces import joined


class OutputParts:
    """The split of outputs by sample, and the joining of a sample's pieces.

    Args:
        positions: the modality whose positions outputs have: one for all, or by the names of the outputs; None where
            all are per sample.
        modalities: all modalities of the batches.

    >>> from multimodal_pad import pad_samples
    >>> batch = pad_samples([{"text": [5, 6]}, {"text": [7]}], batch_size=3)
    >>> [out.tolist() for (out,) in OutputParts(None, ("text",)).of_pieces(np.arange(3), batch, 2)]
    [0, 1]
    >>> [out.tolist() for (out,) in OutputParts("text", ("text",)).of_pieces(np.arange(6).reshape(3, 2), batch, 2)]
    [[0, 1], [2]]
    """

    def __init__(self, positions: str | Mapping[str, str] | None, modalities: Sequence[str]) -> None:
        named = {"": positions} if isinstance(positions, str) else dict(positions or {})
        unknown = sorted(set(named.values()) - set(modalities))
        if unknown:
            raise PaddingError(f"got outputs with positions of {unknown}; the modalities are {list(modalities)}")
        self._all = positions if isinstance(positions, str) else None
        self._named = {} if self._all else named
        self._structure: Any = None
        self._modalities: list[str | None] = []

    def of_pieces(self, outputs: Any, batch: BatchOfLayout, count: int) -> list[list[np.ndarray]]:
        """Return the leaves of the outputs of each of the first ``count`` samples; waits for the device.

        Raises:
            PaddingError: an output that has neither the samples on its first axis nor the positions that it should.
        """
        paths, structure = jax.tree_util.tree_flatten_with_path(outputs)
        if self._structure is None:
            absent = set(self._named) - {_name(path) for path, _ in paths}
            if absent:
                raise PaddingError(f"got positions for the outputs {sorted(absent)}; there are none of these names")
            self._modalities, self._structure = [self._modality(path) for path, _ in paths], structure
        columns = [
            _by_sample(np.asarray(x), batch, count, jax.tree_util.keystr(path))
            if modality is None
            else _by_position(np.asarray(x), batch, modality, jax.tree_util.keystr(path))
            for (path, x), modality in zip(paths, self._modalities, strict=True)
        ]
        return [[column[place] for column in columns] for place in range(count)]

    def together(self, parts: Sequence[list[np.ndarray]], weights: Sequence[int]) -> Any:
        """Join the output of a sample from the leaves of its pieces, weighted where there are several."""
        leaves = [
            joined([leaves[i] for leaves in parts], weights, positions=modality is not None)
            for i, modality in enumerate(self._modalities)
        ]
        return jax.tree.unflatten(self._structure, leaves)

    def _modality(self, path: tuple[Any, ...]) -> str | None:
        return self._all or self._named.get(_name(path))


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path[:1], simple=True) if path else ""


def _by_sample(x: np.ndarray, batch: BatchOfLayout, count: int, where: str) -> list[np.ndarray]:
    """Copy the outputs by sample, so that keeping one doesn't keep the whole batch's."""
    size = batch.shape.batch_size
    if x.ndim < 1 or len(x) != size:
        raise PaddingError(
            f"the model's output{where} has shape {x.shape} for a batch of {size}; give it the samples on the first "
            "axis, or say positions= where it has an output per position"
        )
    rows = np.flatnonzero(batch.sample_mask)[:count].tolist()
    return [np.array(x[row]) for row in rows]


def _by_position(x: np.ndarray, batch: BatchOfLayout, modality: str, where: str) -> list[np.ndarray]:
    features = batch.features[modality]
    front = 1 if batch.layout.end_to_end else 2
    if x.shape[:front] != features.shape[:front]:
        raise PaddingError(
            f"the model's output{where} has shape {x.shape}, and positions of {modality!r} have {features.shape}; give "
            "it the same first axes"
        )
    layout = batch.layout
    alone = batch._replace(features={modality: x}, lengths={modality: batch.lengths[modality]}, targets=None)
    return [np.array(sample[modality]) for sample in layout.take_apart(alone)]
