"""Compile every planned batch shape before the first step."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Protocol

import jax
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from multimodal_pad.compiling.cache import cache_in_use, use_compilation_cache, write_whole_entries
from multimodal_pad.compiling.interrupts import Check, NotedInterrupt
from multimodal_pad.compiling.log import CompileLog
from multimodal_pad.compiling.options import CompilerOptions, default_threads
from multimodal_pad.compiling.table import CompiledStep, StepTable, as_table, batch_struct, program_digest
from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Batch, BatchShape, BatchSpec
from multimodal_pad.lengths.samples import check_whole
from multimodal_pad.progress_bars import progress_bars
from multimodal_pad.text_table import wrapped


class Batches(Protocol):
    """Anything that has the batch shapes and an example to compile a step for, such as a batcher."""

    def spec(self, epochs: int = 1) -> BatchSpec: ...  # noqa: D102


Job = tuple[StepTable, Batch]
"""A table, and the shapes and dtypes of a batch to compile its step for."""

_LOOK_SECONDS = 0.1
"""Seconds after which a wait for programs is interrupted, to check for a signal."""

_Finished = tuple[StepTable, BatchShape, CompiledStep]

OnCompiled = Callable[[StepTable, BatchShape, CompiledStep], Any]
"""A function that is called for each executable, once it is there."""


def warm_up(
    step: StepTable | Callable[[Any, Any], Any],
    batches: Batches | BatchSpec,
    state: Any,
    *,
    epochs: int = 1,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    compiler_options: CompilerOptions | None = None,
    progress: bool = True,
) -> StepTable:
    """Compile a step for every batch shape of a batcher, so that nothing compiles once training has begun.

    Only shapes and dtypes are read, no step is run. Tracing and lowering hold Python's lock and happen
    one after another in the caller's thread, while ``threads`` others compile. Ctrl-C drops programs that have not
    begun and waits for those that have, since XLA can't be stopped; compiled ones stay in the table. A second one ends
    the process with status 130, or in an interactive session changes nothing.

    Args:
        step: the table to fill, or a function ``(state, batch)`` to make one of.
        batches: a batcher; or a :class:`~multimodal_pad.BatchSpec` of shapes and an example batch, where there is none
            yet.
        state: arrays, or anything with their shapes and dtypes.
        epochs: of the run. The shapes of a plan don't depend on it; a ladder's are those that the schedules
            of so many epochs use.
        threads: how many compile side by side; by default :func:`~multimodal_pad.compiling.default_threads`.
        cache_dir: folder of the persistent compilation cache, see :func:`use_compilation_cache`; it holds for
            the process.
        compiler_options: of a function, as in :class:`StepTable`; a table has its own.
        progress: show a bar, and the use of the cache.

    Returns:
        The table; from now on other shapes are unplanned. ``print(table)`` shows the seconds and device
        bytes of each.

    Raises:
        PaddingError: no shapes, other modalities in the example than in the shapes, a folder for the cache
            that others can write to, or compiler options for a table.

    >>> import numpy as np
    >>> from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes
    >>> def total(state, batch):
    ...     return state + batch.features["text"].sum()
    >>> samples = [{"text": np.ones(n, np.float32)} for n in (3, 4, 9)]
    >>> plan = plan_shapes(LengthTable.measure(samples), max_shapes=2, batch_size=2)
    >>> batcher = BucketBatcher(samples, Planned(plan))
    >>> table = warm_up(total, batcher, np.float32(0), progress=False)
    >>> sorted(float(table(np.float32(0), batch)) for batch in batcher.epoch(0))
    [4.0, 12.0]
    """
    table = as_table(step, compiler_options)
    options = {"epochs": epochs, "threads": threads, "cache_dir": cache_dir, "progress": progress}
    warm_up_all([(table, batches)], state, **options)
    return table


def warm_up_all(
    tables: Sequence[tuple[StepTable, Batches | BatchSpec]],
    state: Any,
    *,
    epochs: int = 1,
    threads: int | None = None,
    cache_dir: str | Path | None = None,
    progress: bool = True,
    on_compiled: OnCompiled | None = None,
    check: Check | None = None,
) -> None:
    """Do :func:`warm_up` for several steps of one state together, such as training and evaluation.

    Args:
        tables: each with its batcher, or a :class:`~multimodal_pad.BatchSpec`.
        state: as for :func:`warm_up`, and so are the others.
        epochs: of the run.
        threads: how many compile side by side; by default :func:`~multimodal_pad.compiling.default_threads`.
        cache_dir: folder of the persistent compilation cache.
        progress: show a bar, and the use of the cache.
        on_compiled: is called in this thread with the table, the batch shape and the executable, once each is there.
        check: raises a KeyboardInterrupt where a signal ends the work, as Ctrl-C does by default.

    >>> import numpy as np
    >>> from multimodal_pad import BatchShape, BatchSpec, pad_samples
    >>> def train(state, batch):
    ...     return state + batch.features["text"].sum()
    >>> def evaluate(state, batch):
    ...     return state - batch.features["text"].sum()
    >>> tables = [StepTable(train, donate_state=True), StepTable(evaluate)]
    >>> spec = BatchSpec((BatchShape.of(2, {"text": 8}),), pad_samples([{"text": np.ones(3)}]))
    >>> warm_up_all([(table, spec) for table in tables], np.float32(0), progress=False)
    >>> [len(table) for table in tables]
    [1, 1]
    """
    if cache_dir is not None:
        use_compilation_cache(cache_dir)
    specs = [as_spec(batches, epochs) for _, batches in tables]
    jobs: list[Job] = []
    for (table, _), spec in zip(tables, specs, strict=True):
        if not spec.shapes:
            raise PaddingError(f"got no shapes to warm {table.name!r} up for; give at least one")
        jobs += [(table, batch_struct(spec.example, shape)) for shape in dict.fromkeys(spec.shapes)]
    # The largest ones first, so that no thread starts on one of them when the other has nothing left.
    jobs.sort(key=lambda job: -job[1].shape.positions)
    with CompileLog() as log:
        compile_all(jobs, state, threads=threads, progress=progress, on_compiled=on_compiled, check=check)
    for line in wrapped(log.cache_report()) if progress else []:
        print(line)
    # Only now: after an interrupt no shape without a program may be planned.
    for (table, _), spec in zip(tables, specs, strict=True):
        table.planned += [shape for shape in dict.fromkeys(spec.shapes) if shape not in table.planned]
        table.fingerprint = spec.fingerprint if set(table.planned) == set(spec.shapes) else None


def as_spec(batches: Batches | BatchSpec, epochs: int = 1) -> BatchSpec:
    """Return the spec of a batcher, or the one given."""
    return batches if isinstance(batches, BatchSpec) else batches.spec(epochs)


def compile_all(
    jobs: Sequence[Job],
    state: Any,
    *,
    threads: int | None,
    progress: bool,
    on_compiled: OnCompiled | None = None,
    check: Check | None = None,
) -> list[CompiledStep]:
    """Compile each table's step for the shapes and dtypes of a batch; return the executables in the order of the jobs.

    Programs that a table has are not compiled again. On a GPU the first program is compiled alone, since XLA measures
    kernels there, and programs that are compiled side by side measure the same ones again.

    JAX drops the arguments that a step does not use, so that shapes which differ in nothing else have one program.
    With a persistent cache in use such a program is compiled once: its repetitions come last and are read from the
    cache. Each shape has an executable of its own all the same, which checks the shapes of all arguments.
    """
    threads = default_threads() if threads is None else threads
    check_whole("threads", threads, 1)
    columns = MofNCompleteColumn, TimeElapsedColumn
    missing = {(id(table), batch.shape): (table, batch) for table, batch in jobs if batch.shape not in table.steps}
    cached = cache_in_use() and bool(missing)
    first_alone = jax.default_backend() == "gpu"
    if cached:
        write_whole_entries()
    with NotedInterrupt() as noted, progress_bars(*columns, disable=not progress or not missing) as bar:
        look = noted.check if check is None else check
        task = bar.add_task("compiling", total=len(missing))

        def finish(table: StepTable, shape: BatchShape, lowered: Any, seconds: float) -> _Finished:
            step = table.finish(shape, lowered, seconds)
            bar.update(task, advance=1, description=f"compiled {table.name} for {shape}")
            return table, shape, step

        def settle(futures: Iterable[Future[_Finished]]) -> None:
            for future in futures:
                finished = future.result()
                if on_compiled is not None:
                    on_compiled(*finished)

        def settle_all(futures: Iterable[Future[_Finished]]) -> None:
            waiting = set(futures)
            while waiting:
                look()
                done, waiting = wait(waiting, _LOOK_SECONDS, FIRST_COMPLETED)
                settle(done)

        futures: list[Future[_Finished]] = []
        programs: set[Hashable] = set()
        second: list[tuple[StepTable, BatchShape, Any, float]] = []
        third: list[tuple[StepTable, BatchShape, Any, float]] = []
        pool = ThreadPoolExecutor(threads, thread_name_prefix="compiling")
        try:
            for table, batch in missing.values():
                look()
                done = [future for future in futures if future.done()]
                futures = [future for future in futures if future not in done]
                settle(done)  # an error is raised at once, and not when everything else is compiled
                lowered, seconds = table.lower(state, batch)
                look()
                program = program_digest(lowered) if cached else (id(table), batch.shape)
                job = table, batch.shape, lowered, seconds
                if program in programs:
                    third.append(job)
                elif programs and first_alone:
                    second.append(job)
                else:
                    futures.append(pool.submit(finish, *job))
                programs.add(program)
            for jobs_left in (second, third, []):
                settle_all(futures)
                futures = [pool.submit(finish, *job) for job in jobs_left]
            look()  # the last one may have taken a while
        except KeyboardInterrupt:
            bar.update(task, description="stopping once those under way are compiled")
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [table.steps[batch.shape] for table, batch in jobs]
