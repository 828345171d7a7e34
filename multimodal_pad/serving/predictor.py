"""A trained model for samples: one, a list, or an iterator of unknown length, in the shapes of a plan."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, overload

from flax import nnx

from multimodal_pad.lengths.samples import Sample, Source, read_sample
from multimodal_pad.serving.exporting import export, read_exported
from multimodal_pad.serving.folders import Loaded
from multimodal_pad.serving.running import Dispatched, PieceRunner
from multimodal_pad.serving.saving import is_exported, read_saved, save
from multimodal_pad.serving.server import Server
from multimodal_pad.serving.waiting import Taken

AHEAD = 32
"""Batches whose samples are read ahead, of a list or an iterator: with more to choose from there is less padding."""

_IN_FLIGHT = 2  # batches on the device while the next one is laid out


class Predictor(PieceRunner):
    """The outputs of a trained model for samples, in their order, computed in batches of planned shapes.

    Each shape is compiled once, before the first answer: when the predictor is made, where ``example`` shows what
    samples hold, or else at the first call. After that nothing compiles. Any number of threads may call it.

    Args:
        model: an ``nnx.Module``, called as ``model(batch)`` in evaluation mode; its outputs, an array or dicts, lists
            and tuples of arrays, have the samples on the first axis. It is read, not changed. (Or a program of
            :func:`load_exported`.)
        plan: a :class:`~multimodal_pad.ShapePlan`, a :class:`~multimodal_pad.PackingPlan`, the path of a plan's file,
            or a policy with few shapes.
        batch_size: samples of a batch, where the plan leaves it open.
        example: a sample, a batch, or a batcher: its feature shapes and dtypes are those of all samples.
        positions: the modality whose positions outputs have, ``(B, L_m, ...)`` or packed ``(N_m, ...)``: these are cut
            to the length of each sample. One name for all outputs, or by the outputs' own names, ``{"tags": "text"}``.
        long_samples: what to do with samples that no shape holds: ``"error"``; ``"truncate"`` (keep the front); or
            ``"window"``: they are cut into as few equal windows as fit, as many for each modality, and outputs are the
            mean over the windows, weighted by their positions (outputs per position are put end to end). Counted in
            :attr:`stats`.
        standardize: statistics that features are standardised by before the model gets them, where it was trained on
            such; samples then hold unstandardised features.
        check_finite: refuse NaN and inf, which would reach other samples of a packed batch.
        pad_value: what stands in the padding, for all modalities or per modality.
        smaller: also compile each shape at a part of its samples, ``(4, 16)`` for a fourth and a 16th, for batches that
            hold no more. In the packed layout capacities are divided, too.
        vocabulary_sizes: ids of a modality are below it; by default those of a ``MultimodalTransformer``'s config.
        vocabularies: token to id, of modalities that are token ids; kept for the caller.
        compiler_options: of XLA, see :class:`~multimodal_pad.compiling.StepTable`.
        progress: show a bar while shapes are compiled.

    Attributes:
        policy: of the plan.
        shapes: all batch shapes that are compiled.
        stats: the predictions so far, a :class:`PredictionStats`.
        vocabularies: as given.

    Raises:
        PaddingError: something else than an NNX module, a policy without an end of shapes or with very many, no batch
            size or another than the plan's, a part that doesn't divide a shape, or an option out of range.

    >>> import numpy as np
    >>> from multimodal_pad import Fixed
    >>> class Sums(nnx.Module):
    ...     def __init__(self):
    ...         self.scale = nnx.Param(np.float32(2))
    ...     def __call__(self, batch):
    ...         return self.scale * batch.features["audio"].sum(axis=1)
    >>> predictor = Predictor(Sums(), Fixed({"audio": 4}), batch_size=2, long_samples="truncate")
    >>> float(predictor({"audio": np.float32([1, 2])}))
    6.0
    >>> [float(x) for x in predictor([{"audio": np.ones(n, np.float32)} for n in (3, 9, 0)])]
    [6.0, 8.0, 0.0]
    >>> predictor.stats.truncated
    1
    """

    @overload
    def __call__(self, samples: Mapping[str, Any]) -> Any: ...
    @overload
    def __call__(self, samples: Sequence[Sample] | Source) -> list[Any]: ...
    @overload
    def __call__(self, samples: Iterable[Sample]) -> Iterator[Any]: ...

    def __call__(self, samples: Any) -> Any:
        """Compute the outputs of one sample, or of each of several in their order; NumPy, without the axis of samples.

        Args:
            samples: one sample; a list, or another source with ``len()`` and ``[i]``, which gives a list; or any other
                iterable, which gives a generator that reads the samples of some 32 batches ahead. Targets are left
                out.

        Raises:
            SampleError: a sample that is not like the first one or the example, or with NaN or inf; it is named.
            UncoveredLengthError: a sample is longer than every shape, and ``long_samples="error"``.
            PaddingError: outputs without the samples' axis, or means of windows that are no floats.
        """
        if isinstance(samples, Mapping):
            return next(self._outputs(iter([samples])))
        if hasattr(samples, "__len__") and hasattr(samples, "__getitem__"):
            return list(self._outputs(read_sample(samples, index) for index in range(len(samples))))
        return self._outputs(iter(samples))

    def serve(self, *, max_delay_ms: float = 5.0, queue_size: int = 1024) -> Server:
        """Make a server that gathers single requests into batches; see :class:`Server`."""
        return Server(self, max_delay_ms=max_delay_ms, queue_size=queue_size)

    def save(self, folder: str | Path) -> None:
        """Write parameters, plan, options and a description of the model to a new folder; :meth:`load` reads it.

        No pickle is written, and none is read.

        Raises:
            FileExistsError: the folder is there.
            PaddingError: an exported program, which has no model, or no sample was seen yet.
        """
        save(self, Path(folder))

    @classmethod
    def load(
        cls,
        folder: str | Path,
        *,
        model: nnx.Module | None = None,
        best: bool = True,
        ahead: bool = True,
        **options: Any,
    ) -> Predictor:
        """Read a predictor that was saved or exported, or the model of checkpoints that ``fit`` wrote.

        The model of checkpoints takes unstandardised features, where a flat cache says that they were standardised
        for training: the statistics are in the checkpoints, and so are vocabularies.

        Args:
            folder: of :meth:`save` or :meth:`export`, or the checkpoints of a training.
            model: one made like the one that was saved, where that is no ``MultimodalTransformer``; its values
                don't matter.
            best: for checkpoints: take the best epoch so far, or the last step.
            ahead: compile all shapes now.
            options: of :class:`Predictor`, instead of those that were saved. ``plan`` is needed where the policy isn't
                of this package; ``standardize=None`` takes features that are standardised already.

        Raises:
            PaddingError: no predictor there, one that is damaged or of another version, another model, or a model that
                only its own code can make.
            TrainingError: as :func:`~multimodal_pad.training.saved_model.restore_model`.

        Warns:
            CheckpointWarning: a checkpoint is damaged, and skipped.
        """
        if is_exported(Path(folder)):
            return load_exported(folder, ahead=ahead, **options)
        return cls._of(read_saved(Path(folder), model, best=best, options=options), ahead=ahead)

    def export(self, folder: str | Path, platforms: Sequence[str] = ("cpu", "cuda", "tpu")) -> None:
        """Write programs that a process without the model's code loads; see :func:`load_exported`.

        A program per batch shape and platform, made by :mod:`jax.export`, with the attention that this package would
        choose there (on an NVIDIA GPU one that any of them runs), and the parameters once for all. Needs the package
        ``flatbuffers``.

        Args:
            folder: a new one.
            platforms: some of ``"cpu"``, ``"cuda"``, ``"rocm"`` and ``"tpu"``; none of them has to be here.

        Raises:
            FileExistsError: the folder is there.
            PaddingError: as :meth:`save`, an unknown platform, outputs of classes of one's own, or ``flatbuffers`` is
                missing.
        """
        export(self, Path(folder), platforms)

    @classmethod
    def _of(cls, loaded: Loaded, *, ahead: bool) -> Predictor:
        predictor = cls(loaded.model, loaded.plan, **loaded.options)
        if ahead and loaded.kinds and "example" not in loaded.options:
            predictor.warm_up(predictor.limited(loaded.kinds))
        return predictor

    def __repr__(self) -> str:
        more = f", at {len(self.shapes)} batch shapes" if self.smaller else ""
        return f"Predictor({self.policy!r}{more}, long_samples={self.long_samples!r})"

    def _outputs(self, samples: Iterator[Sample]) -> Iterator[Any]:
        """Yield outputs in order: full batches while there is much to choose from, and the rest at the end.

        Where the outputs of many samples wait for a sample of a rare shape, that gets its batch at once.
        """
        waiting, open_samples, in_flight = self.waiting(), deque[_Sample](), deque[Dispatched]()
        ahead = AHEAD * self.most_samples

        def settle(left: int) -> None:
            while len(in_flight) > left:
                dispatched = in_flight.popleft()
                for piece, parts in zip(dispatched.pieces, self.finish(dispatched), strict=True):
                    piece.owner.parts[piece.place] = parts

        def run(taken: Taken | None) -> None:
            if taken is not None:
                in_flight.append(self.dispatch(taken))
                settle(_IN_FLIGHT)

        for number, given in enumerate(samples):
            sample = _Sample()
            pieces = self.pieces(given, sample, number)
            sample.weights += [sum(piece.lengths) for piece in pieces]
            sample.parts += [None] * len(pieces)
            open_samples.append(sample)
            waiting.add(pieces)
            while len(waiting) > ahead:
                run(waiting.take_best())
            if len(open_samples) > 2 * ahead:  # the first one is of a rare shape, or on its way
                while (first := waiting.first()) is not None and first.owner is open_samples[0]:
                    run(waiting.take_oldest())
                settle(0)
            while open_samples and all(parts is not None for parts in open_samples[0].parts):
                sample = open_samples.popleft()
                yield self.together(sample.parts, sample.weights)
        for taken in waiting.batches():
            run(taken)
        settle(0)
        for sample in open_samples:
            yield self.together(sample.parts, sample.weights)


@dataclass(eq=False)
class _Sample:
    """The outputs of a sample's pieces, as they come, and the weight of each."""

    parts: list[Any] = field(default_factory=list)
    weights: list[int] = field(default_factory=list)


def load_exported(folder: str | Path, *, ahead: bool = True, **options: Any) -> Predictor:
    """Read the programs of :meth:`Predictor.export`, without the model's code and without tracing again.

    The folder's contents are run: load only what you trust.

    Args:
        folder: of the programs.
        ahead: compile all shapes now.
        options: of :class:`Predictor`, instead of those that were exported.

    Raises:
        PaddingError: no exported programs there, none for JAX's default backend, damage, another version, or the
            package ``flatbuffers`` is missing.

    >>> import tempfile
    >>> import numpy as np
    >>> from multimodal_pad import Fixed
    >>> class Sums(nnx.Module):
    ...     def __init__(self):
    ...         self.scale = nnx.Param(np.float32(2))
    ...     def __call__(self, batch):
    ...         return self.scale * batch.features["audio"].sum(axis=1)
    >>> sample = {"audio": np.float32([1, 2])}
    >>> predictor = Predictor(Sums(), Fixed({"audio": 4}), batch_size=2, example=sample)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     predictor.export(folder + "/exported", platforms=["cpu", "cuda", "tpu"])
    ...     loaded = load_exported(folder + "/exported")
    >>> float(loaded(sample))
    6.0
    """
    return Predictor._of(read_exported(Path(folder), options), ahead=ahead)
