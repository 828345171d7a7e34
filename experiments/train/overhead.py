"""What callbacks and the names in profiles cost a training step: the same loop with them and without, in turns.

The step takes some 2 ms. Each training is a call of fit over batches that lie ready; the loop without names has them
taken out. On the clock a step differs from the next by more than either costs, so that the time is taken, too, that
the loop's thread computes inside of the callbacks and of the names, in the middle of the training. The loop without
names takes the time of nothing, as often, which is taken off.

With Python: python -m experiments.train.overhead --out results/overhead/mine
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax
from flax import nnx
from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import BucketBatcher, Fixed
from multimodal_pad.layouts.layout import Batch, BatchSpec
from multimodal_pad.spans import span
from multimodal_pad.training import DataMesh, epochs, feed, fit
from multimodal_pad.training.callbacks import Listeners
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.logs import JsonLinesLog


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default.

    Attributes:
        batch_size: samples of a batch.
        steps: of an epoch.
        epochs: of each training; the first one, which warms up, is not counted.
        rounds: trainings of each kind, in turns.
        step_ms: of a step.
        width: of its products.
    """

    batch_size: int = 32
    steps: int = 200
    epochs: int = 4
    rounds: int = 7
    step_ms: float = 2.0
    width: int = 64


QUICK = {"steps": 20, "epochs": 2, "rounds": 1, "step_ms": 0.5}
"""Options under --quick, to check that everything works."""

PLAIN, NAMES, CALLBACK, JSON_LINES = "neither", "names in profiles", "names and a function", "names and JSON lines"
_NOTHING = nullcontext()

CLOCK, INSIDE = "clock_seconds", "inside_seconds"


class Chain(nnx.Module):
    """A model of a chain of products, for a step of any length."""

    def __init__(self, width: int, links: int, rngs: nnx.Rngs) -> None:
        self.embed, self.link, self.head = (
            nnx.Linear(*sizes, rngs=rngs) for sizes in ((1, width), (width, width), (width, 2))
        )
        self.links = links

    def __call__(self, batch: Any) -> jax.Array:
        """Return outputs ``(B, 2)``."""
        x = self.embed(batch.features["audio"][:, 0])
        kernel = self.link.kernel[...]
        if self.links:
            x, _ = jax.lax.scan(lambda x, _: (jax.numpy.tanh(x @ kernel), None), x, length=self.links)
        return self.head(x)


class Ready(Feed):
    """The batches of a batcher, made once, so that the loop waits for none."""

    def __init__(self, batcher: BucketBatcher) -> None:
        self.policy, self._batcher = batcher.policy, batcher
        self._batches = list(batcher.epoch(0))

    def spec(self, epochs: int = 1) -> BatchSpec:
        """Return that of the batcher."""
        return self._batcher.spec(epochs)

    def example(self) -> Batch:
        """Return that of the batcher."""
        return self._batcher.example()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """Return the same batches in each epoch."""
        del epoch
        return feed.waited_for(iter(self._batches))

    def steps(self, epoch: int) -> int | None:
        """Return the number of batches."""
        del epoch
        return len(self._batches)

    def identity(self) -> dict[str, Any]:
        """Return nothing, since nothing is saved."""
        return {}

    def check_state(self, state: Mapping[str, Any]) -> None:
        """Do nothing, since nothing is saved."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing, since nothing is saved."""

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        """Return the same, with rows spread over devices."""
        del mesh, name
        return self


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure seconds per step of each kind of loop."""
    samples = [
        {"audio": np.full((1, 1), i % 7, np.float32), "targets": np.int32(i % 2)}
        for i in range(config.batch_size * config.steps)
    ]
    batches = Ready(BucketBatcher(samples, Fixed({"audio": 1}), batch_size=config.batch_size))
    links = _links(config, batches)
    task = progress.add_task("training", total=4 * config.rounds)
    found: dict[str, dict[str, list[float]]] = {
        loop: {CLOCK: [], INSIDE: []} for loop in (PLAIN, NAMES, CALLBACK, JSON_LINES)
    }
    for number in range(config.rounds):
        turn = number % len(found)  # so that no kind always follows the same other one
        for loop in [*list(found)[turn:], *list(found)[:turn]]:
            for name, seconds in _train(config, batches, links, loop).items():
                found[loop][name] += seconds
            progress.advance(task)
    return {
        "config": asdict(config),
        "links": links,
        "rows": [{"loop": loop, **times} for loop, times in found.items()],
    }


def _links(config: Config, batches: Ready) -> int:
    """Find the number of products for a step of the given length."""
    few, many = 20, 220
    short, long = (min(_train(config, batches, links, PLAIN)[CLOCK]) for links in (few, many))
    each = max((long - short) / (many - few), 1e-9)
    return max(1, few + round((config.step_ms / 1e3 - short) / each))


def _train(config: Config, batches: Ready, links: int, loop: str) -> dict[str, list[float]]:
    """Time each epoch but the first: seconds per step on the clock, and of this thread inside callbacks and names."""
    ends: list[tuple[float, float]] = []
    inside = Inside()
    with tempfile.TemporaryDirectory() as folder, _names(loop != PLAIN, inside):
        steps = Listeners.steps
        with mock.patch.object(Listeners, "steps", lambda *given: inside.of(steps, *given)):
            fit(
                Chain(config.width, links, nnx.Rngs(0)),
                batches,
                epochs=config.epochs,
                optimizer=optax.sgd(1e-3),
                on_step={CALLBACK: _nothing, JSON_LINES: JsonLinesLog(Path(folder, "steps.jsonl"))}.get(loop),
                on_epoch=lambda _: ends.append((time.perf_counter(), inside.seconds)),
                progress=False,
            )
    clock, within = (np.diff(values) / config.steps for values in np.array(ends).T)
    return {CLOCK: clock.tolist(), INSIDE: within.tolist()}


class Inside:
    """The sum of this thread's CPU time in some calls."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def of(self, function: Callable[..., Any], *given: Any, **options: Any) -> Any:
        """Call a function."""
        began = time.thread_time()
        try:
            return function(*given, **options)
        finally:
            self.seconds += time.thread_time() - began


class TimedBlock:
    """A context manager whose entering and leaving are timed."""

    def __init__(self, inside: Inside, make: Callable[..., Any], *given: Any, **options: Any) -> None:
        self._inside = inside
        self._block = inside.of(make, *given, **options)

    def __enter__(self) -> Any:
        return self._inside.of(self._block.__enter__)

    def __exit__(self, *error: Any) -> Any:
        return self._inside.of(self._block.__exit__, *error)


@contextmanager
def _names(given: bool, inside: Inside) -> Iterator[None]:
    """Keep the names of the loop, or take them out, each timed."""
    named = partial(TimedBlock, inside, span if given else _no_name)
    with mock.patch.object(epochs, "span", named), mock.patch.object(feed, "span", named):
        yield


def _no_name(*given: Any, **options: Any) -> Any:
    del given, options
    return _NOTHING


def _nothing(record: dict[str, Any]) -> None:
    del record


def by_round(results: dict[str, Any], loop: str, seconds: str) -> np.ndarray:
    """Return the median seconds per step of each training of a loop."""
    (row,) = (row for row in results["rows"] if row["loop"] == loop)
    return np.median(np.reshape(row[seconds], (results["config"]["rounds"], -1)), axis=1)


def table(results: dict[str, Any]) -> Table:
    """Make a row per kind of loop."""
    config = results["config"]
    unit = 1e3 * config["step_ms"]
    plain, nothing, rows = by_round(results, PLAIN, CLOCK), by_round(results, PLAIN, INSIDE), []
    for row in results["rows"]:
        loop = row["loop"]
        low, more, high = 1e6 * np.percentile(by_round(results, loop, CLOCK) - plain, [25, 50, 75])
        inside = 1e6 * (by_round(results, loop, INSIDE) - np.median(nothing))
        few, some, many = np.percentile(inside, [25, 50, 75])
        rows.append(
            [
                loop,
                f"{1e6 * float(np.median(by_round(results, loop, CLOCK))):,.0f}",
                "" if loop == PLAIN else f"{more:+.0f} ({low:+.0f} to {high:+.0f})",
                *(["", ""] if loop == PLAIN else [f"{some:.1f} ({few:.1f} to {many:.1f})", f"{some / unit:.2%}"]),
            ]
        )
    note = (
        f"Medians of {config['rounds']} trainings of {config['epochs'] - 1} epochs of {config['steps']} steps, in "
        f"turns, and the middle half of the rounds. Batches of {config['batch_size']} lie ready on the host; a step is "
        f"{results['links']} products. Inside: what the loop's thread computes in callbacks and names."
    )
    of_step = f"of a step of {config['step_ms']:g} ms"
    heading = ["loop with", "µs per step", "more, µs on the clock", "inside, µs of the CPU", of_step]
    return Table("What callbacks and names cost a step", heading, rows, note)


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(table(results).markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("train.overhead", __doc__)
    options = parser.parse_args(arguments)
    config = Config(**(QUICK if options.quick else {}))
    return run_experiment("train.overhead", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
