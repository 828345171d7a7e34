"""The cost of a batch shape: FLOPs and bytes of a training step of the multimodal transformer.

A cost is a function of padded lengths: ``cost(lengths (n, M)) -> (n,)``, per sample. That is all
that the schedule and the statistics ask for, so any function of that form serves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.samples import LARGEST, check_whole, shown

Cost = Callable[[np.ndarray], np.ndarray]
"""``(n, M)`` lengths to ``(n,)`` costs per sample, in any unit, not below 0."""

_SAMPLED = 32  # rows of lengths at which cost functions are compared


def position_count(lengths: np.ndarray) -> np.ndarray:
    """Count the positions of all modalities together: the plainest cost.

    Args:
        lengths: whole numbers ``(n, M)``.

    Returns:
        Their sums ``(n,)``, in the dtype that NumPy sums them in.

    >>> position_count(np.array([[3, 40], [9, 0]])).tolist()
    [43, 9]
    """
    return np.asarray(lengths).sum(axis=1)


def attention_area(lengths: np.ndarray) -> np.ndarray:
    """Count the query-key pairs where every modality attends to all, itself included.

    Args:
        lengths: whole numbers ``(n, M)``.

    Returns:
        The squares of their sums ``(n,)``, float64.

    >>> attention_area(np.array([[3, 40], [9, 0]])).tolist()
    [1849.0, 81.0]
    """
    return np.asarray(lengths, np.float64).sum(axis=1) ** 2


def priced_modalities(cost: Cost) -> tuple[str, ...] | None:
    """Return the modalities that a cost (or the object whose method it is) names for its columns, or None."""
    names = getattr(getattr(cost, "__self__", cost), "modalities", None)
    return None if names is None else tuple(names)


def check_priced(cost: Cost, modalities: Sequence[str]) -> None:
    """Raise a PaddingError where a cost (or the object whose method it is) names other modalities."""
    priced = priced_modalities(cost)
    if priced is not None and priced != tuple(modalities):
        raise PaddingError(
            f"got a cost of the modalities {list(priced)} for lengths of {list(modalities)}; give both the same names "
            "in the same order"
        )


def costs_of(cost: Cost, lengths: np.ndarray, modalities: Sequence[str]) -> np.ndarray:
    """Return the costs of lengths ``(n, M)``: float64 ``(n,)``, checked.

    Raises:
        PaddingError: another shape, or a number that is not finite or below 0; the first such row is named.

    >>> costs_of(position_count, np.array([[3, 40], [9, 0]]), ("text", "audio")).tolist()
    [43.0, 9.0]
    """
    costs = np.asarray(cost(lengths), np.float64)
    if costs.shape != (len(lengths),):
        raise PaddingError(f"the cost of {len(lengths)} rows has shape {costs.shape}; it must be one number per row")
    fine = (costs >= 0) & (costs < np.inf)
    if not fine.all():
        bad = int(np.argmin(fine))
        row = ", ".join(f"{m} {n}" for m, n in zip(modalities, np.asarray(lengths)[bad].tolist(), strict=True))
        raise PaddingError(f"the cost of ({row}) is {costs[bad]}; it must be a finite number, >= 0")
    return costs


PLAIN_COSTS: dict[str, Cost] = {"position_count": position_count, "attention_area": attention_area}
"""This package's cost functions, by their names in files."""


def cost_name(cost: Cost) -> str:
    """Return the name of a cost in files and errors: plain for this package's own, else with its module."""
    for name, known in PLAIN_COSTS.items():
        if cost is known:
            return name
    if type(cost) is TransformerCost:
        return "TransformerCost"
    name = getattr(cost, "__qualname__", type(cost).__qualname__)
    return f"{getattr(cost, '__module__', type(cost).__module__)}.{name}"


def sampled_prices(cost: Cost, count: int) -> str:
    """Return a cost's values at some lengths of ``count`` modalities, by which functions can be compared.

    >>> sampled_prices(position_count, 2)[:12]
    '39 187 335 4'
    """
    rows = 1 + np.arange(_SAMPLED * count).reshape(_SAMPLED, -1) * 37 % 401
    return " ".join(f"{price:.4g}" for price in np.asarray(cost(rows), np.float64))


def same_cost(one: Cost, other: Cost, count: int) -> bool:
    """Return whether two costs of ``count`` modalities agree at some lengths."""
    return one is other or sampled_prices(one, count) == sampled_prices(other, count)


def _check_number(name: str, value: float, rule: str) -> None:
    """Raise a PaddingError unless it is a finite number, 0 or more."""
    if not isinstance(value, Real) or not 0 <= value <= np.finfo(np.float64).max:
        raise PaddingError(f"got {name}={shown(value)}; {rule}")


@dataclass(frozen=True)
class BatchBudget:
    """As many rows per batch as fit a limit, for each batch shape.

    A batch shape gets ``limit / measure(lengths)`` rows, rounded down to a multiple, at most ``largest``.
    The padded lengths decide, not the samples in it, so that no batch of the shape can exceed the limit.

    Attributes:
        limit: for a whole batch, in the unit of ``measure``.
        measure: per row of padded lengths, ``(n, M) -> (n,)``: positions (the default), any cost, or
            bytes (:meth:`TransformerCost.activation_bytes`).
        multiple: rows are a multiple of it: 8 for tensor cores, or the number of devices.
        largest: the most rows of a batch, or None.

    Raises:
        PaddingError: a limit that is not above 0, a multiple below 1, ``largest`` below ``multiple``.

    >>> BatchBudget(1000, multiple=8, largest=64).batch_sizes(np.array([[3, 4], [20, 40]])).tolist()
    [64, 16]
    """

    limit: float
    measure: Cost = position_count
    multiple: int = 1
    largest: int | None = None

    def __post_init__(self) -> None:
        check_whole("multiple", self.multiple, 1)
        _check_number("limit", self.limit, "a batch budget must be a finite number above 0")
        if not self.limit > 0:
            raise PaddingError(f"got limit={self.limit!r}; a batch budget must be a finite number above 0")
        if self.largest is not None:
            check_whole("largest", self.largest, self.multiple)

    def measured(self, lengths: np.ndarray) -> np.ndarray:
        """Return how much of the limit a sample takes at each of the lengths, ``(k, M) -> (k,)`` float64.

        Raises:
            PaddingError: the measure gives anything but a finite number, 0 or more, per row.
        """
        measured = np.asarray(self.measure(lengths), np.float64)
        if measured.shape != (len(lengths),) or not (measured.min(initial=0) >= 0 and measured.max(initial=0) < np.inf):
            raise PaddingError(
                f"the batch budget's measure gave {measured} for the lengths {np.asarray(lengths).tolist()}; it must "
                "give a finite number, 0 or more, per row"
            )
        return measured

    def batch_sizes(self, lengths: np.ndarray) -> np.ndarray:
        """Return samples per batch at each of the lengths, ``(k, M) -> (k,)`` int64; 0 where not even ``multiple`` fit.

        Never more than 2,147,483,647.
        """
        measured = self.measured(lengths)
        most = LARGEST if self.largest is None else self.largest
        rows = np.minimum(self.limit / np.maximum(measured, self.limit / 2**32), most)
        return rows.astype(np.int64) // self.multiple * self.multiple


@dataclass(frozen=True)
class TransformerCost:
    """FLOPs of one sample in a training step of :class:`~multimodal_pad.models.MultimodalTransformer`.

    Matrix products only, two FLOPs per multiply-add; norms, softmax and biases are left out. For
    lengths ``L`` of M modalities the forward pass costs ``L @ linear + L @ quadratic @ L``:

    - input: a convolution of ``kernel`` over ``width`` features, ``2 kernel width d L_m``
      (nothing for token ids, which are looked up);
    - each of the M (M - 1) crossmodal encoders, per layer, with target t and source s: projections of
      query and output and the feed-forward part of width 4d, ``20 d^2 L_t``; of key and value,
      ``4 d^2 L_s``; scores and weighted sum, ``4 d L_t L_s``;
    - each of the M memories, of width ``D = (M - 1) d`` (d where M = 1), per layer:
      ``24 D^2 L_m + 4 D L_m^2``.

    A training step costs three forward passes (the backward pass takes two).

    Memory is what the backward pass keeps, :meth:`activation_bytes`. Its constants (17.5 values per
    position, width and layer, as many of work space, 2.4 score matrices per layer and half a one of work space)
    were fitted to XLA's memory analysis on CPU for 2 and 3 modalities, widths 40 and 80, and 1 and 3 layers.

    The unit is FLOPs until the weights say otherwise: :func:`multimodal_pad.compiling.calibrate` fits the
    first two to seconds on a device, where a FLOP of attention takes another time than one of a projection.

    Attributes:
        modalities: names of the M columns.
        d_model: width d of the crossmodal encoders.
        crossmodal_layers: layers of each crossmodal encoder.
        memory_layers: layers of each memory encoder.
        feature_widths: features per position; 0 or absent for token ids.
        kernel_sizes: kernel of each input convolution; 1 where absent.
        num_heads: attention heads.
        keeps_scores: whether attention keeps its score matrices for the backward pass, as the
            ``xla`` implementation does and ``tiled`` and ``cudnn`` don't.
        itemsize: bytes of one activation (4 for float32, 2 for bfloat16).
        linear_weight: weight of a FLOP that grows with the length.
        quadratic_weight: weight of a FLOP that grows with a product of lengths.
        memory_weight: weight of a byte of :meth:`activation_bytes`, so that a step that is bound by
            memory can be priced as such; 0 counts FLOPs alone.

    >>> cost = TransformerCost(("text", "audio"), d_model=8, crossmodal_layers=1, memory_layers=1)
    >>> cost(np.array([[1, 1], [2, 2]])).tolist()
    [18816.0, 38400.0]
    """

    modalities: Sequence[str]
    d_model: int = 40
    crossmodal_layers: int = 4
    memory_layers: int = 4
    feature_widths: Mapping[str, int] = field(default_factory=dict)
    kernel_sizes: Mapping[str, int] = field(default_factory=dict)
    num_heads: int = 8
    keeps_scores: bool = False
    itemsize: int = 4
    memory_weight: float = 0.0
    linear_weight: float = 1.0
    quadratic_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("d_model", "crossmodal_layers", "memory_layers", "num_heads", "itemsize"):
            check_whole(name, getattr(self, name), 1)
            object.__setattr__(self, name, int(getattr(self, name)))  # NumPy's would overflow in silence
        for name in ("feature_widths", "kernel_sizes"):
            for modality, value in getattr(self, name).items():
                check_whole(f"{name}[{modality!r}]", value, 0)
        for name in ("memory_weight", "linear_weight", "quadratic_weight"):
            _check_number(name, getattr(self, name), "it must be a finite number, 0 or more")

    @property
    def _memory_width(self) -> int:
        return self.d_model * max(1, len(self.modalities) - 1)

    @property
    def _input_widths(self) -> np.ndarray:
        widths = [self.kernel_sizes.get(m, 1) * self.feature_widths.get(m, 0) for m in self.modalities]
        return np.asarray(widths, np.float64)

    @property
    def linear(self) -> np.ndarray:
        """Forward FLOPs per position, ``(M,)``."""
        d, wide, others = self.d_model, self._memory_width, len(self.modalities) - 1
        encoders = 24 * d**2 * self.crossmodal_layers * others + 24 * wide**2 * self.memory_layers
        return 2.0 * d * self._input_widths + encoders

    @property
    def quadratic(self) -> np.ndarray:
        """Forward FLOPs per pair of positions, ``(M, M)``: row = query, column = key."""
        crossmodal = 4.0 * self.d_model * self.crossmodal_layers
        memory = 4.0 * self._memory_width * self.memory_layers
        count = len(self.modalities)
        return np.full((count, count), crossmodal) + np.eye(count) * (memory - crossmodal)

    def __call__(self, lengths: np.ndarray) -> np.ndarray:
        """Return the weighted FLOPs and bytes of a training step per sample, ``(n, M) -> (n,)`` float64."""
        cost = self.step_flops(lengths) @ (self.linear_weight, self.quadratic_weight)
        return cost + self.memory_weight * self.activation_bytes(lengths) if self.memory_weight else cost

    def step_flops(self, lengths: np.ndarray) -> np.ndarray:
        """Return FLOPs per sample of a training step, ``(n, M) -> (n, 2)`` float64: linear and quadratic ones."""
        lengths = np.asarray(lengths, np.float64)
        pairs = np.einsum("nt,nt->n", lengths @ self.quadratic, lengths)
        return 3.0 * np.stack([lengths @ self.linear, pairs], axis=1)

    def activation_bytes(self, lengths: np.ndarray) -> np.ndarray:
        """Return bytes per sample that a training step holds beside state and batch, ``(n, M) -> (n,)``."""
        lengths = np.asarray(lengths, np.float64)
        d, wide, others = self.d_model, self._memory_width, len(self.modalities) - 1
        kept = 17.5 * (d * others * self.crossmodal_layers + wide * self.memory_layers + wide)
        held = self.itemsize * lengths @ (2 * self._input_widths + kept)
        if self.keeps_scores:
            count = len(self.modalities)
            layers = np.full((count, count), self.crossmodal_layers)
            np.fill_diagonal(layers, self.memory_layers)
            scores = 4 * self.num_heads * (2.4 * layers + 0.5)  # always float32
            held += np.einsum("nt,nt->n", lengths @ scores, lengths)
        return held
