"""Pieces: a sample, or the windows that a long one is cut into; and the joining of their outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from multimodal_pad.errors import PaddingError, UncoveredLengthError
from multimodal_pad.lengths.samples import check_choice
from multimodal_pad.scheduling.policy import Policy

LongRequests = Literal["error", "truncate", "window"]
"""What to do with a sample that no planned shape holds."""


class Piece(NamedTuple):
    """The arrays that are laid out as one sample of a batch.

    Attributes:
        arrays: of each modality.
        lengths: of each, in the order of the policy's modalities.
        owner: the request or sample that it is a piece of.
        place: its number among the owner's pieces.
    """

    arrays: dict[str, np.ndarray]
    lengths: tuple[int, ...]
    owner: Any
    place: int = 0


def check_long_requests(long_samples: str) -> None:
    """Raise a PaddingError unless it is a way to treat samples that no planned shape holds."""
    check_choice("long_samples", long_samples, LongRequests)


def pieces_of(
    arrays: dict[str, np.ndarray], policy: Policy, long_samples: LongRequests, owner: Any, number: int
) -> list[Piece]:
    """Return the pieces of a sample: itself, its front where it is truncated, or its windows.

    Windows are as few as hold the sample where each is no longer than truncating would leave, as equal as can be,
    and as many for every modality, so that windows of modalities with one clock are of one time.

    Raises:
        UncoveredLengthError: it is longer than every shape, and that is to be an error.

    >>> from multimodal_pad import Fixed
    >>> arrays = {"text": np.arange(5), "audio": np.arange(2)}
    >>> pieces = pieces_of(arrays, Fixed({"text": 2, "audio": 4}), "window", None, 0)
    >>> [piece.arrays["text"].tolist() for piece in pieces], [piece.lengths for piece in pieces]
    ([[0], [1, 2], [3, 4]], [(1, 0), (2, 1), (2, 1)])
    """
    lengths = np.array([[len(arrays[name]) for name in policy.modalities]])
    if policy.covers(lengths)[0]:
        return [Piece(arrays, tuple(lengths[0].tolist()), owner)]
    if long_samples == "error":
        raise UncoveredLengthError(
            f"sample {number}: {policy.why_not(lengths[0])}; plan for longer samples, or choose "
            'long_samples="truncate" or "window"'
        )
    kept = policy.truncate(lengths)[0]
    if long_samples == "truncate":
        cut = {name: arrays[name][:n] for name, n in zip(policy.modalities, kept.tolist(), strict=True)}
        return [Piece(cut, tuple(kept.tolist()), owner)]
    count = int((-(-lengths[0] // np.maximum(kept, 1))).max())
    edges = (lengths[0][None] * np.arange(count + 1)[:, None]) // count
    pieces = []
    for place in range(count):
        ends = zip(policy.modalities, edges[place].tolist(), edges[place + 1].tolist(), strict=True)
        window = {name: arrays[name][begin:end] for name, begin, end in ends}
        pieces.append(Piece(window, tuple((edges[place + 1] - edges[place]).tolist()), owner, place))
    return pieces


def joined(outputs: Sequence[np.ndarray], weights: Sequence[int], *, positions: bool) -> np.ndarray:
    """Join the outputs of a sample's windows: end to end where they are per position, else their mean.

    Args:
        outputs: of the windows.
        weights: of each in the mean: its number of real positions.
        positions: whether there is an output per position.

    Raises:
        PaddingError: a mean of anything but floats.

    >>> joined([np.float32([1, 0]), np.float32([4, 3])], [2, 1], positions=False).tolist()
    [2.0, 1.0]
    """
    if len(outputs) == 1:
        return outputs[0]
    if positions:
        return np.concatenate(outputs)
    dtype = outputs[0].dtype
    if dtype.kind in "biu":
        raise PaddingError(
            f"got outputs of dtype {dtype} of a sample in {len(outputs)} windows, and their mean makes no sense; have "
            'the model give floats such as logits, or choose long_samples="truncate"'
        )
    stacked = np.stack([np.asarray(x, np.float64) for x in outputs])
    return np.average(stacked, axis=0, weights=np.maximum(weights, 1e-9)).astype(dtype)
