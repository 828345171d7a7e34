"""Layouts: how the samples of a batch lie in its arrays, and the batch shapes that XLA compiles programs for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, Unpack

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.arrays import LayingOut
from multimodal_pad.lengths.cost import Cost
from multimodal_pad.lengths.samples import LARGEST, Sample
from multimodal_pad.lengths.trees import Tree


class Batch(Protocol):
    """The parts of every batch, whatever its layout: a NamedTuple of arrays, so that ``jax.jit`` takes it as it is.

    Attributes:
        features: arrays of each modality, laid out.
        lengths: ``{m: (B,)}`` int32, positions of each sample; 0 = missing.
        targets: ``(B, ...)``, or a dict of such arrays, or None.
        sample_mask: ``(B,)`` bool; False = an empty sample that only fills up the batch.
        ids: int32 ``(B,)``, the numbers of the samples, -1 where one only fills up; None where not asked for.
        position_targets: of each modality that has some a target for each of its positions, laid out as these are: an
            array, or a dict of them; or None.
        shape: the batch shape.
        layout: how the samples lie.
        nbytes: of all arrays.

    >>> from multimodal_pad import pad_samples
    >>> def real_samples(batch: Batch) -> int:
    ...     return int(batch.sample_mask.sum())
    >>> real_samples(pad_samples([{"text": [5, 6]}, {"text": [7]}], batch_size=4))
    2
    """

    @property
    def features(self) -> dict[str, np.ndarray]: ...  # noqa: D102  described above, like the others
    @property
    def lengths(self) -> dict[str, np.ndarray]: ...  # noqa: D102
    @property
    def targets(self) -> Tree: ...  # noqa: D102
    @property
    def sample_mask(self) -> np.ndarray: ...  # noqa: D102
    @property
    def ids(self) -> np.ndarray | None: ...  # noqa: D102
    @property
    def position_targets(self) -> dict[str, Tree] | None: ...  # noqa: D102
    @property
    def shape(self) -> BatchShape: ...  # noqa: D102
    @property
    def layout(self) -> Layout: ...  # noqa: D102
    @property
    def nbytes(self) -> int: ...  # noqa: D102
    def _replace(self, **fields: Any) -> Any: ...


BatchOfLayout = Any
"""A :class:`Batch` with what its layout has beside that, such as ``masks``."""


class BatchShape(NamedTuple):
    """The shape of a batch, for which XLA compiles one program.

    Attributes:
        batch_size: samples, empty ones included.
        lengths: for each modality its name and its bucket length, in the order of the names.
        layout: how the samples lie.

    >>> str(BatchShape.of(32, {"text": 18, "audio": 66}))
    '32 x (audio 66, text 18)'
    """

    batch_size: int
    lengths: tuple[tuple[str, int], ...]
    layout: Layout

    @classmethod
    def of(cls, batch_size: int, lengths: Mapping[str, int], layout: Layout | str = "padded") -> BatchShape:
        """Return the shape of so many samples at these lengths; the layout may be given by its name.

        Raises:
            PaddingError: more rows, or positions of a modality, than int32 numbers.
        """
        ordered = tuple((m, int(n)) for m, n in sorted(lengths.items()))
        if max([int(batch_size), *(n for _, n in ordered)]) > LARGEST:
            listed = ", ".join(f"{n:,} of {m!r}" for m, n in ordered)
            raise PaddingError(
                f"got a batch shape of {int(batch_size):,} rows and positions {listed}; batches number them by int32: "
                f"at most {LARGEST:,} of each"
            )
        return cls(int(batch_size), ordered, layout_named(layout) if isinstance(layout, str) else layout)

    @property
    def positions(self) -> int:
        """Positions that a batch of this shape holds, all modalities together."""
        row = np.array([[length for _, length in self.lengths]])
        return int(self.layout.positions(np.array([self.batch_size]), row).sum())

    def price(self, cost: Cost, modalities: Sequence[str]) -> float:
        """Return the cost of a batch of this shape; the columns of ``cost`` are these modalities."""
        lengths = dict(self.lengths)
        row = np.array([[lengths[name] for name in modalities]])
        return float(self.layout.price(np.array([self.batch_size]), row, cost)[0])

    def __str__(self) -> str:
        return self.layout.describe(self)


class BatchSpec(NamedTuple):
    """All that a step is compiled from: batch shapes, and what batches hold.

    Attributes:
        shapes: the batch shapes.
        example: any batch: its feature shapes, dtypes and targets serve; its lengths and size don't matter.
        fingerprint: of the plan that the shapes are of, for errors; None where they are of none.

    >>> from multimodal_pad import pad_samples
    >>> example = pad_samples([{"audio": np.zeros((3, 74), np.float32)}])
    >>> spec = BatchSpec([BatchShape.of(32, {"audio": length}) for length in (40, 80)], example)
    >>> [str(shape) for shape in spec.shapes], spec.example.features["audio"].shape[2:]
    (['32 x (audio 40)', '32 x (audio 80)'], (74,))
    """

    shapes: Sequence[BatchShape]
    example: Batch
    fingerprint: str | None = None


def batch_shapes(
    batch_sizes: np.ndarray, lengths: np.ndarray, modalities: Sequence[str], layout: Layout
) -> list[BatchShape]:
    """Return batch shapes from arrays: sizes ``(k,)``, and lengths ``(k, M)`` whose columns are the modalities."""
    rows = zip(batch_sizes.tolist(), lengths.tolist(), strict=True)
    return [BatchShape.of(size, dict(zip(modalities, row, strict=True)), layout) for size, row in rows]


class Layout(ABC):
    """The way in which the samples of a batch lie in its arrays.

    A layout is a value: equal to others of its kind, and part of each :class:`BatchShape`. All that depends on how
    samples lie is a method of it, so that a new layout takes one file, and the line where the model chooses by layout.

    Attributes:
        name: what files and options call it.
        end_to_end: whether samples share one axis per modality, so that a shape's lengths are capacities: they hold the
            sums of the samples' lengths, and not each.

    >>> shape = BatchShape.of(4, {"text": 8})
    >>> shape.layout.name, shape.layout.positions(np.array([4]), np.array([[8]])).tolist()
    ('padded', [[32]])
    >>> str(shape.layout.share(shape, 2))
    '2 x (text 8)'
    """

    name: str
    end_to_end: bool = False

    def __str__(self) -> str:
        return self.name

    @abstractmethod
    def lay_out(
        self,
        arrays: Mapping[str, list[np.ndarray]],
        samples: Sequence[Sample],
        shape: BatchShape,
        **options: Unpack[LayingOut],
    ) -> Batch:
        """Lay some samples out as a batch, in fresh, 64-byte-aligned buffers that share nothing with the samples.

        Args:
            arrays: of each modality one per sample, alike in feature shape and dtype.
            samples: the same samples, read for their targets.
            shape: of the batch; empty samples fill it up.
            options: see :class:`~multimodal_pad.layouts.arrays.LayingOut`. With ``share_sizes``, equal runs of all
                arrays are batches of the shares.

        Raises:
            SampleError: samples that the shape does not hold, NaN or inf, a pad value that the dtype can't hold, or
                targets that are not alike, or not one for each position.
        """

    @abstractmethod
    def take_apart(self, batch: Batch) -> list[dict[str, Any]]:
        """Return the samples of a batch, without those that only fill it up: views of its arrays, and the targets."""

    @abstractmethod
    def struct(self, example: Batch, shape: BatchShape, like: Callable[..., Any]) -> Any:
        """Return a batch at another shape; ``like(array, *front)`` makes each array as given, with these first axes."""

    def check_alone(self, batch: BatchOfLayout) -> None:
        """Raise a PaddingError where a batch is laid out for several devices, and so is no input of one model."""
        del batch  # rows can be run together as well as in parts

    def check_streamed(self) -> None:  # noqa: B027  most layouts take any samples that their shapes hold
        """Raise a PaddingError where batches of samples that were not planned for may not be laid out."""

    def together(self, lengths: np.ndarray) -> np.ndarray:
        """Return the least lengths ``(M,)`` of a shape that holds samples of ``lengths (n, M)`` in one batch."""
        return np.maximum(lengths.sum(axis=0) if self.end_to_end else lengths.max(axis=0, initial=0), 1)

    def holds(self, shape: BatchShape, lengths: np.ndarray) -> bool:
        """Return whether a batch of a shape holds samples of these lengths ``(n, M)``, in this order.

        The columns follow the shape's lengths.
        """
        return len(lengths) <= shape.batch_size and bool(
            (self.together(lengths) <= [n for _, n in shape.lengths]).all()
        )

    @abstractmethod
    def full_lengths(self, shape: BatchShape) -> dict[str, np.ndarray]:
        """Return lengths ``{m: (B,)}`` int32 with which every position of a batch is real."""

    @abstractmethod
    def positions(self, batch_sizes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return positions that batches hold, ``(k, M)``, for sizes ``(k,)`` and the shapes' lengths ``(k, M)``."""

    @abstractmethod
    def price(self, batch_sizes: np.ndarray, lengths: np.ndarray, cost: Cost) -> np.ndarray:
        """Return the costs of batches, ``(k,)`` float64, for sizes ``(k,)`` and the shapes' lengths ``(k, M)``."""

    def paid(
        self, batch_sizes: np.ndarray, lengths: np.ndarray, real: np.ndarray, costs: np.ndarray, cost: Cost
    ) -> np.ndarray:
        """Return the costs of batches that hold these samples, ``(k,)`` float64; by default their price.

        Args:
            batch_sizes: of the shapes, ``(k,)``.
            lengths: of the shapes, ``(k, M)``.
            real: real positions of the batches, ``(k, M)``.
            costs: of their samples, ``(k,)``.
            cost: per sample.
        """
        del real, costs
        return self.price(batch_sizes, lengths, cost)

    @abstractmethod
    def share(self, shape: BatchShape, count: int) -> BatchShape:
        """Return the shape of one of ``count`` equal shares of a batch.

        Raises:
            PaddingError: the batch can't be shared out so.
        """

    def divided(self, count: int) -> Layout:
        """Return the layout of one of ``count`` equal shares."""
        del count  # as a rule the same
        return self

    def joined(self, shape: BatchShape, count: int) -> BatchShape:
        """Return the shape of a batch of which this is one of ``count`` equal shares."""
        return shape._replace(batch_size=count * shape.batch_size)

    @abstractmethod
    def describe(self, shape: BatchShape) -> str:
        """Describe a batch shape in words."""


L = TypeVar("L", bound=Layout)

_LAYOUTS: dict[str, Layout] = {}


def named_layout(layout: L) -> L:
    """Register a layout under its name, and return it; each layout's file does so once."""
    _LAYOUTS[layout.name] = layout
    return layout


def layout_named(name: str) -> Layout:
    """Return the layout of this name.

    Raises:
        PaddingError: there is none.
    """
    if name not in _LAYOUTS:
        raise PaddingError(f"got layout={name!r}; choose one of {sorted(_LAYOUTS)}")
    return _LAYOUTS[name]
