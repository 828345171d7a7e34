"""Checkpoints of a training, written by Orbax in the background; damaged ones are found, and skipped."""

from __future__ import annotations

import itertools
import math
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp

from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.training.checkpoint_folder import (
    RECORD,
    STATE,
    DamageError,
    array_copies,
    array_handler,
    check_arrays,
    make_record,
    named_arrays,
    nested,
    read_record,
    read_state,
)
from multimodal_pad.training.processes import told_by_the_first

_REPLACED = "replaced-"

_Check = Callable[[dict[str, Any]], None]
"""A function that gets a record, and raises where it is refused."""


class Checkpoint(NamedTuple):
    """The result of :meth:`Checkpoints.restore`.

    Attributes:
        step: the number it was saved under.
        state: pytree of arrays.
        record: the other values that were saved, JSON values by name.
    """

    step: int
    state: Any
    record: dict[str, Any]


class Checkpoints:
    """The checkpoints of one training in one folder: the last ones, and the best.

    :meth:`save` copies the state and returns; the files are written by Orbax in the background, under a temporary name
    until they are whole. A process that is killed at any time leaves a whole checkpoint at a step, or none.
    :meth:`restore` compares all it reads with checksums from the time of writing.

    Of several processes each makes the same calls. Only the first one writes, so that none waits for another, and it
    decides which checkpoint is taken. They need a folder that all of them see.

    Arrays are stored by name: the checkpoint of step 12 is read without this package, too, by
    ``orbax.checkpoint.StandardCheckpointer().restore(directory / "12" / "state")``, as nested dicts of arrays.

    Args:
        directory: a local folder, made at the first save; for one training at a time.
        keep_last: how many of the latest checkpoints are kept.
        keep_best: how many of those with the lowest loss are kept beside them; of equal ones the first.

    Raises:
        TrainingError: ``keep_last`` below 1, ``keep_best`` below 0, or a directory that is no local folder.

    >>> import tempfile
    >>> import numpy as np
    >>> folder = tempfile.TemporaryDirectory()
    >>> with Checkpoints(folder.name) as checkpoints:
    ...     for step in range(1, 5):
    ...         checkpoints.save(step, {"weights": np.full(3, step)}, {"epoch": 0}, loss=abs(step - 1.5))
    ...     checkpoints.restore({"weights": np.zeros(3, int)})
    Checkpoint(step=4, state={'weights': array([4, 4, 4])}, record={'epoch': 0})
    >>> sorted(path.name for path in Path(folder.name).iterdir())
    ['1', '3', '4']
    >>> folder.cleanup()
    """

    def __init__(self, directory: str | Path, *, keep_last: int = 2, keep_best: int = 1) -> None:
        check_whole("keep_last", keep_last, 1, TrainingError)
        check_whole("keep_best", keep_best, 0, TrainingError)
        self.directory = Path(directory).expanduser().absolute()
        if "://" in str(directory) or (self.directory.exists() and not self.directory.is_dir()):
            raise TrainingError(f"got {str(directory)!r} for checkpoints, which is not a local folder; name another")
        self._keep_last, self._best = keep_last, _LowestLoss(keep_best)
        self._manager: ocp.CheckpointManager | None = None
        self._damaged: list[int] = []
        self._writing = -1

    def save(
        self, step: int, state: Any, record: Mapping[str, Any], *, loss: float | None = None, replace: bool = False
    ) -> None:
        """Copy the state and begin to write it; waits for the write before, if that is still under way.

        The arrays may be donated or overwritten as soon as it returns.

        Args:
            step: a whole number, above that of every checkpoint in the folder.
            state: pytree of jax and numpy arrays.
            record: JSON values by name for all that is no array, such as the history and the position in the data.
            loss: by which the best is found; without one a checkpoint is never the best.
            replace: put it in the place of the checkpoint of this step, which is kept aside until it is whole.

        Raises:
            TrainingError: a step that is not above the last, a state with other things than arrays, a record that is
                not JSON (names the key), a loss that is not finite, or this write or the one before failed.
            OSError: the folder can't be made.
        """
        check_whole("step", step, 0, TrainingError, most=None)
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(f"got loss={loss!r} at step {step}; it must be finite, or None")
        self.wait()  # before the state is copied, so that there is one copy at a time
        if jax.process_index() > 0:
            return
        copies = array_copies(state)
        saved = make_record(copies, record, None if loss is None else float(loss))
        if replace and self._folder(step).exists():
            self.close()
            self._folder(step).rename(self._aside(step))
        manager = self._manager or self._open()
        latest = manager.latest_step()
        if latest is not None and latest >= step:
            raise TrainingError(
                f"got step {step}, and {self.directory} has a checkpoint of step {latest}; go on from it with restore, "
                "or name another folder"
            )
        self._writing = int(step)
        self._best.losses[self._writing] = loss
        arrays = nested((leaf.path, leaf.array) for leaf in copies)
        items = {STATE: ocp.args.PyTreeSave(arrays), RECORD: ocp.args.JsonSave(saved)}
        try:
            manager.save(self._writing, args=ocp.args.Composite(**items), force=True)
        except Exception as error:
            raise self._failed(error) from error

    def restore(self, like: Any = None, *, check: _Check = lambda _: None) -> Checkpoint | None:
        """Read the last checkpoint that is whole; compiles nothing.

        Args:
            like: a state with the structure, shapes, dtypes and shardings to restore; its values don't matter, and
                arrays of it may have been donated. By default the state comes as nested dicts of NumPy arrays, whose
                keys are strings.
            check: is called with the record before any array is read, and raises where it is not to be restored.

        Returns:
            The checkpoint, or None where there is none at all.

        Raises:
            TrainingError: all checkpoints are damaged, the last whole one has another structure, other shapes or dtypes
                than ``like`` (names the first difference), it was written by a version of this package with another
                format, or a write before failed.

        Warns:
            CheckpointWarning: a checkpoint is damaged or half-written, and skipped. The next :meth:`save` renames a
                damaged one to ``damaged-`` and its step, and deletes what is half-written.
        """
        self.close()  # so that the next save reads the folder anew
        if like is not None:
            named_arrays(like)
        read: dict[int, Checkpoint] = {}
        step = told_by_the_first("checkpoint", lambda: self._choose(like, check, read))
        if step is not None and step not in read:
            try:
                read[step] = self._read(step, like, check)
            except DamageError as error:
                raise TrainingError(
                    f"process {jax.process_index()} finds {self._folder(step)} damaged ({error}), and process 0 does "
                    "not; all processes must see the same folder"
                ) from error
        return None if step is None else read[step]

    def check(self, like: Any, *, check: _Check = lambda _: None) -> None:
        """Raise where :meth:`restore` would refuse the last checkpoint by its record, without reading any array.

        This shows it before slow work such as compiling. Damage is passed over here, since restore reports it.

        Args:
            like: as for :meth:`restore`, and so is ``check``.
            check: is called with the record.

        Raises:
            TrainingError: the checkpoint has another structure, other shapes or dtypes than ``like``, or is of another
                format; or a write before failed.
        """
        self.close()
        told_by_the_first("checkpoint", lambda: self._check_last(like, check))

    def wait(self) -> None:
        """Return when nothing is being written any more.

        Raises:
            TrainingError: the write failed (names the step and why).
        """
        if self._manager is not None:
            try:
                self._manager.wait_until_finished()
            except Exception as error:
                raise self._failed(error) from error
        if jax.process_index() == 0 and self._folder(self._writing).exists():
            shutil.rmtree(self._aside(self._writing), ignore_errors=True)

    def close(self) -> None:
        """Wait, and end all threads. A later :meth:`save` opens the folder again.

        Raises:
            TrainingError: as :meth:`wait`.
        """
        self.wait()
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _folder(self, step: int) -> Path:
        return self.directory / str(step)

    def _aside(self, step: int) -> Path:
        """Return where a checkpoint is while another takes its place."""
        return self.directory / f"{_REPLACED}{step}"

    def _put_back(self) -> None:
        """Put back what was kept aside by a process that was killed before the new one was whole."""
        for path in self.directory.glob(f"{_REPLACED}*"):
            step = path.name.removeprefix(_REPLACED)
            if not step.isdecimal():
                continue  # not one of our checkpoints
            folder = self._folder(int(step))
            if folder.exists():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.rename(folder)

    def _read(self, step: int, like: Any, check: _Check) -> Checkpoint:
        content = read_record(self._folder(step))
        check(content["record"])
        return Checkpoint(step, read_state(self._folder(step), content, like), content["record"])

    def _check_last(self, like: Any, check: _Check) -> None:
        self._put_back()
        for step in sorted(_steps(self.directory), reverse=True):
            with suppress(DamageError):
                content = read_record(self._folder(step))
                check(content["record"])
                check_arrays(self._folder(step), content, like)
                return

    def _choose(self, like: Any, check: _Check, read: dict[int, Checkpoint]) -> int | None:
        """Return the step of the last whole checkpoint, and put that into ``read``."""
        self._put_back()
        reasons: dict[int, DamageError] = {}
        for step in sorted(_steps(self.directory), reverse=True):
            try:
                read[step] = self._read(step, like, check)
                break
            except DamageError as error:
                reasons[step] = error
        if reasons and not read:
            why = "; ".join(f"{step}: {reason}" for step, reason in reasons.items())
            raise TrainingError(
                f"all checkpoints in {self.directory} are damaged ({why}); put back a copy, or, to start anew, delete "
                "them or name another folder"
            )
        self._damaged = list(reasons)
        chosen = max(read, default=None)
        instead = "there is no other, so nothing is restored" if chosen is None else f"{self._folder(chosen)} is taken"
        for step, reason in reasons.items():
            _warn(f"the checkpoint {self._folder(step)} is damaged ({reason}) and is skipped; {instead}")
        for path in sorted(self.directory.glob(f"*{ocp.step.TMP_DIR_SUFFIX}*")):
            _warn(f"{path} is half-written, by a process that has ended (or still runs), and is skipped; {instead}")
        return chosen

    def _open(self) -> ocp.CheckpointManager:
        self._prepare()
        # This process alone: Orbax would make all of them wait for each other.
        alone = jax.process_index()
        processes = ocp.options.MultiprocessingOptions(primary_host=alone, active_processes={alone})
        handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
        handlers.add(STATE, ocp.args.PyTreeSave, array_handler(processes))
        policies = [ocp.checkpoint_managers.LatestN(self._keep_last), self._best]
        options = ocp.CheckpointManagerOptions(
            create=False,
            save_root_metadata=False,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,  # it would fail at a damaged file
            preservation_policy=ocp.checkpoint_managers.AnyPreservationPolicy(policies),
            multiprocessing_options=processes,
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        manager = self._manager = ocp.CheckpointManager(self.directory, options=options, handler_registry=handlers)
        self._best.losses = {}
        for step in manager.all_steps():
            with suppress(DamageError):
                self._best.losses[step] = read_record(self._folder(step))["loss"]
        return manager

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for step in self._damaged:
            names = (f"damaged-{step}{again}" for again in itertools.chain([""], map("-{}".format, itertools.count(2))))
            aside = next(path for path in map(self.directory.joinpath, names) if not path.exists())
            self._folder(step).rename(aside)
        self._damaged = []

    def _failed(self, error: Exception) -> TrainingError:
        """Return the error to raise, and drop the manager, which has forgotten checkpoints that it has not deleted."""
        manager, self._manager = self._manager, None
        if manager is not None:
            manager.close()
        return TrainingError(
            f"the checkpoint of step {self._writing} was not written to {self.directory}: {error}; those before it are "
            "as they were"
        )


@dataclass
class _LowestLoss(ocp.checkpoint_managers.PreservationPolicy):
    """A rule that keeps the best by our records' losses; Orbax's BestN has losses in files without a checksum."""

    count: int
    losses: dict[int, float | None] = field(default_factory=dict)

    def should_preserve(
        self,
        checkpoints: Sequence[ocp.checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: Any,  # noqa: ARG002  Orbax passes it
    ) -> list[bool]:
        losses = {info.step: self.losses.get(info.step) for info in checkpoints}
        ranked = sorted((loss, step) for step, loss in losses.items() if loss is not None)
        best = {step for _, step in ranked[: self.count]}
        return [info.step in best for info in checkpoints]


def _steps(directory: Path) -> list[int]:
    return [found.step for found in ocp.step.standard_name_format().find_all(directory)]


def _warn(text: str) -> None:
    warnings.warn(text, CheckpointWarning, stacklevel=6)  # at the caller of restore
