"""What callbacks and the names in profiles cost a training step: the same loop with them and without, in turns.

The step takes some 2 ms. Each training is a call of fit over batches that lie ready; the loop without names has them
taken out. Beside the time on the clock, which other processes disturb, the time is taken that the loop's own thread
computes: what the host does for a step, whatever the device does meanwhile.

With Python: python -m experiments.overhead --out results/overhead/mine
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import numpy as np
import optax
from flax import nnx
from rich.progress import Progress

from experiments.output import write_results
from experiments.tables import Table
from multimodal_pad import BucketBatcher, Fixed
from multimodal_pad.cli import exit_status
from multimodal_pad.layouts.layout import Batch, BatchSpec
from multimodal_pad.spans import name_spans_by
from multimodal_pad.training import DataMesh, fit
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.logs import JsonLinesLog


@dataclass(frozen=True)
class Config:
    """One run; every default is here.

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
"""What --quick changes: a look at whether everything works."""

PLAIN, NAMES, CALLBACKS = "neither", "names in profiles", "names, JSON lines and a function"
CLOCK, HOST = "clock_seconds", "host_seconds"


class Chain(nnx.Module):
    """So many products one after another: a step as long as one wants."""

    def __init__(self, width: int, links: int, rngs: nnx.Rngs) -> None:
        self.embed, self.link, self.head = (
            nnx.Linear(*sizes, rngs=rngs) for sizes in ((1, width), (width, width), (width, 2))
        )
        self.links = links

    def __call__(self, batch: Any) -> jax.Array:
        """Outputs ``(B, 2)``."""
        x = self.embed(batch.features["audio"][:, 0])
        kernel = self.link.kernel[...]
        if self.links:
            x, _ = jax.lax.scan(lambda x, _: (jax.numpy.tanh(x @ kernel), None), x, length=self.links)
        return self.head(x)


class Ready(Feed):
    """The batches of a batcher, made once: nobody reads or waits."""

    def __init__(self, batcher: BucketBatcher) -> None:
        self.policy, self._batcher = batcher.policy, batcher
        self._batches = list(batcher.epoch(0))

    def spec(self, epochs: int = 1) -> BatchSpec:
        """Of the batcher."""
        return self._batcher.spec(epochs)

    def example(self) -> Batch:
        """Of the batcher."""
        return self._batcher.example()

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The same batches in each epoch."""
        del epoch
        return iter(self._batches)

    def steps(self, epoch: int) -> int | None:
        """How many there are."""
        del epoch
        return len(self._batches)

    def identity(self) -> dict[str, Any]:
        """Nothing, as nothing is saved."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing is saved."""

    def shared(self, mesh: DataMesh, name: str) -> Feed:
        """The same, whose rows are spread."""
        del mesh, name
        return self


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Seconds per step of each kind of loop."""
    samples = [
        {"audio": np.full((1, 1), i % 7, np.float32), "targets": np.int32(i % 2)}
        for i in range(config.batch_size * config.steps)
    ]
    batches = Ready(BucketBatcher(samples, Fixed({"audio": 1}), batch_size=config.batch_size))
    links = _links(config, batches)
    task = progress.add_task("training", total=3 * config.rounds)
    found: dict[str, dict[str, list[float]]] = {loop: {CLOCK: [], HOST: []} for loop in (PLAIN, NAMES, CALLBACKS)}
    for number in range(config.rounds):
        turn = number % len(found)  # so that none always comes after the same other one
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
    """As many products as a step of the length wanted takes."""
    few, many = 20, 220
    short, long = (min(_train(config, batches, links, PLAIN)[CLOCK]) for links in (few, many))
    each = max((long - short) / (many - few), 1e-9)
    return max(1, few + round((config.step_ms / 1e3 - short) / each))


def _train(config: Config, batches: Ready, links: int, loop: str) -> dict[str, list[float]]:
    """Seconds per step of each epoch but the first, on the clock and of this thread."""
    ends: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder, _names(loop != PLAIN):
        fit(
            Chain(config.width, links, nnx.Rngs(0)),
            batches,
            epochs=config.epochs,
            optimizer=optax.sgd(1e-3),
            on_step=[JsonLinesLog(Path(folder, "steps.jsonl")), _nothing] if loop == CALLBACKS else None,
            on_epoch=lambda _: ends.append((time.perf_counter(), time.thread_time())),
            progress=False,
        )
    clock, host = (np.diff(values) / config.steps for values in np.array(ends).T)
    return {CLOCK: clock.tolist(), HOST: host.tolist()}


@contextmanager
def _names(given: bool) -> Iterator[None]:
    """Names in profiles as ever, or none at all."""
    if given:
        yield
        return
    name_spans_by(lambda _: nullcontext())
    try:
        with mock.patch.object(jax.profiler, "StepTraceAnnotation", return_value=nullcontext()):
            yield
    finally:
        name_spans_by(jax.profiler.TraceAnnotation)


def _nothing(record: dict[str, Any]) -> None:
    del record


def medians(results: dict[str, Any], seconds: str) -> dict[str, float]:
    """Seconds per step of each loop."""
    return {row["loop"]: float(np.median(row[seconds])) for row in results["rows"]}


def table(results: dict[str, Any]) -> Table:
    """A row per kind of loop."""
    config, clock, host = results["config"], medians(results, CLOCK), medians(results, HOST)
    rows = []
    for loop, seconds in host.items():
        more = 1e6 * (seconds - host[PLAIN])
        share = more / (1e3 * config["step_ms"])
        rows.append([loop, f"{1e6 * clock[loop]:,.0f}", f"{1e6 * seconds:,.1f}", f"{more:+.1f}", f"{share:+.2%}"])
    of_step = f"of a step of {config['step_ms']:g} ms"
    note = (
        f"Medians of {config['rounds']} trainings of {config['epochs'] - 1} epochs of {config['steps']} steps, in "
        f"turns; batches of {config['batch_size']}, ready on the host; a step is {results['links']} products. The "
        "host's time is what the loop's thread computes."
    )
    heading = ["loop with", "µs per step", "of the host, µs", "more, µs", of_step]
    return Table("What callbacks and names cost a step", heading, rows, note)


def markdown(results: dict[str, Any]) -> str:
    """The table, and where it comes from."""
    from experiments.provenance import where_measured

    return f"{table(results).markdown()} {where_measured(results)}"


def main(arguments: list[str]) -> int:
    """Run and write; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.overhead",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/overhead/<time>")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that everything works")
    options = parser.parse_args(arguments)
    config = Config(**(QUICK if options.quick else {}))
    return exit_status(
        lambda: write_results("overhead", arguments, options.out, lambda progress: run(config, progress), markdown)
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
