"""What do planned shapes and gathering do for single requests: latency and throughput under an offered load?

Requests come at random times (a Poisson process) that don't depend on the answers. First, as many as one thread answers
one by one, each alone in a batch at its own planned shape: that rate is the unit of the loads. Then each way of serving
gets the same requests at the same times. When the queue is full, a request is refused. Latency counts from the time
that a request was due, so that a late submission makes nothing look better. Nothing compiles meanwhile.

With Python: python -m experiments.serving --data-dir DIR --out results/serving/mine
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx
from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.distributions import draw_lengths
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import Fixed, LengthTable, plan_packing, plan_shapes
from multimodal_pad.compiling import CompileLog
from multimodal_pad.errors import QueueFullError
from multimodal_pad.lengths.samples import Sample
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.serving import Predictor
from multimodal_pad.sources import Meld

ONE_BY_ONE = "one by one"

WIDTHS = {"audio": 32, "visual": 32}
"""Features per position of each modality; text is token ids."""

VOCABULARY = 1000


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default.

    Attributes:
        data_dir: MELD's CSV files, or None for synthetic lengths that follow MELD's.
        samples: whose lengths the shapes are planned for, and the requests are drawn from.
        shapes: of the plan.
        batch_size: samples of a batch.
        smaller: parts of the batches that are compiled, too, for one of the ways.
        loads: requests per second, in units of what is answered one by one.
        seconds: in which requests come, for each way and load.
        max_delay_ms: the longest that a request waits for others.
        queue_size: requests that wait at most.
        d_model: of the transformer.
        layers: of its crossmodal encoders and memories.
    """

    data_dir: str | None = None
    samples: int = 2000
    shapes: int = 8
    batch_size: int = 16
    smaller: tuple[int, ...] = (4, 16)
    loads: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    seconds: float = 4.0
    max_delay_ms: float = 5.0
    queue_size: int = 256
    d_model: int = 40
    layers: int = 1


QUICK = {
    "samples": 40,
    "shapes": 2,
    "batch_size": 4,
    "smaller": (4,),
    "loads": (0.5, 2.0),
    "seconds": 0.3,
    "d_model": 8,
}
"""Options under --quick, to check that everything works."""


def lengths_of(config: Config) -> LengthTable:
    """Return the lengths to plan for and to draw from."""
    if config.data_dir is None:
        return draw_lengths("meld", config.samples)
    return Meld(config.data_dir, "train").lengths


def make_sample(lengths: dict[str, int], rng: np.random.Generator) -> Sample:
    """Make random features and token ids of these lengths."""
    return {
        name: rng.standard_normal((n, WIDTHS[name]), np.float32)
        if name in WIDTHS
        else rng.integers(0, VOCABULARY, n).astype(np.int32)
        for name, n in lengths.items()
    }


def make_model(config: Config, table: LengthTable) -> MultimodalTransformer:
    """Make an untrained transformer, since its outputs don't matter here."""
    tokens = ModalityConfig(vocabulary_size=VOCABULARY)
    sizes = {name: ModalityConfig(feature_width=width) for name, width in WIDTHS.items()}
    modalities = {name: sizes.get(name, tokens) for name in table.modalities}
    made = TransformerConfig(
        modalities, 7, d_model=config.d_model, crossmodal_layers=config.layers, memory_layers=config.layers
    )
    return MultimodalTransformer(made, rngs=nnx.Rngs(0))


def ways(config: Config, table: LengthTable, model: nnx.Module, example: Sample) -> dict[str, Callable[[], Predictor]]:
    """Return the ways of serving, by name; each is compiled when it is called."""
    size, cost = config.batch_size, model.config.cost  # type: ignore[attr-defined]
    planned = plan_shapes(table, max_shapes=config.shapes, batch_size=size, cost=cost)
    alone = plan_shapes(table, max_shapes=config.shapes, batch_size=1, cost=cost)
    packing = plan_packing(table, batch_size=size, cost=cost)
    options: dict[str, Any] = {"example": example}
    return {
        ONE_BY_ONE: lambda: Predictor(model, alone, **options),
        "fixed shape": lambda: Predictor(model, Fixed.longest(table), batch_size=size, **options),
        f"{config.shapes} planned shapes": lambda: Predictor(model, planned, **options),
        f"{config.shapes} planned shapes, and parts of them": lambda: Predictor(
            model, planned, smaller=config.smaller, **options
        ),
        "packed": lambda: Predictor(model, packing, **options),
    }


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    table, rng = lengths_of(config), np.random.default_rng(0)
    drawn = table.values[rng.integers(0, len(table), min(len(table), 500))].tolist()
    samples = [make_sample(dict(zip(table.modalities, row, strict=True)), rng) for row in drawn]
    model = make_model(config, table)
    served = ways(config, table, model, samples[0])
    task = progress.add_task("serving", total=len(served) * (1 + len(config.loads)))
    rows, unit, shapes = [], 0.0, {}
    for name, make in served.items():
        progress.update(task, description=f"compiling: {name}")
        predictor = make()
        shapes[name] = len(predictor.shapes)
        predictor(samples[: 2 * config.batch_size])
        progress.advance(task)
        if name == ONE_BY_ONE:
            unit = rate_one_by_one(predictor, samples, config.seconds)
        for load in config.loads:
            progress.update(task, description=f"{name}, load {load:g}")
            rows.append({"way": name, "load": load, **offer(predictor, samples, load * unit, config)})
            progress.advance(task)
    return {
        "config": asdict(config),
        "corpus": "like MELD" if config.data_dir is None else "MELD",
        "shapes": shapes,
        "unit": unit,
        "rows": rows,
    }


def rate_one_by_one(predictor: Predictor, samples: list[Sample], seconds: float) -> float:
    """Measure the requests per second that one thread answers, one after the other."""
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        predictor(samples[count % len(samples)])
        count += 1
    return count / (time.perf_counter() - started)


def offer(predictor: Predictor, samples: list[Sample], rate: float, config: Config) -> dict[str, Any]:
    """Send requests at random times, ``rate`` a second; measure how many are answered, and how fast."""
    rng = np.random.default_rng(1)
    due = np.cumsum(rng.exponential(1 / rate, max(1, int(rate * config.seconds)))).tolist()
    latencies: list[float] = []
    lock, refused = threading.Lock(), 0
    before = positions_of(predictor)
    with CompileLog() as log:
        with predictor.serve(max_delay_ms=config.max_delay_ms, queue_size=config.queue_size) as server:
            begun = time.perf_counter()

            def answered(at: float) -> Callable[[Any], None]:
                def note(_: Any) -> None:
                    with lock:
                        latencies.append(time.perf_counter() - begun - at)

                return note

            for number, at in enumerate(due):
                time.sleep(max(0.0, begun + at - time.perf_counter()))
                with suppress(QueueFullError):
                    server.submit(samples[number % len(samples)], timeout=0).add_done_callback(answered(at))
                    continue
                refused += 1
        seconds = time.perf_counter() - begun
        compiled = log.total.backend_compiles
    real, positions = (now - then for now, then in zip(positions_of(predictor), before, strict=True))
    return {
        "offered_per_second": len(due) / due[-1],
        "requests": len(due),
        "refused": refused,
        "answered_per_second": len(latencies) / seconds,
        "p50_ms": 1e3 * float(np.percentile(latencies, 50)),
        "p99_ms": 1e3 * float(np.percentile(latencies, 99)),
        "batches": server.stats.batches,
        "padding_efficiency": real / positions,
        "compilations": compiled,
    }


def positions_of(predictor: Predictor) -> tuple[int, int]:
    """Return the numbers of real positions and of all positions so far."""
    return predictor.stats.real_positions, predictor.stats.positions


def table(results: dict[str, Any]) -> Table:
    """Make a row per way of serving, with latency and throughput at each load."""
    config, rows = results["config"], results["rows"]
    names = list(dict.fromkeys(row["way"] for row in rows))
    loads = list(dict.fromkeys(row["load"] for row in rows))
    found = {(row["way"], row["load"]): row for row in rows}
    body = []
    for name in names:
        of_way = [found[name, load] for load in loads]
        compiled = sum(row["compilations"] for row in of_way)
        shown = [str(results["shapes"][name]), *map(_told, of_way), f"{of_way[-1]['padding_efficiency']:.2f}"]
        body.append([name, *shown, str(compiled)])
    heading = ["", "shapes", *(f"{load * results['unit']:,.0f} requests/s" for load in loads)]
    layers = f"{config['layers']} layer{'s' * (config['layers'] > 1)}"
    return Table(
        "Single requests",
        [*heading, "real positions", "compiled meanwhile"],
        body,
        "p50 / p99 latency in ms; in brackets, the requests answered per second where others are refused because the "
        f"queue of {config['queue_size']} is full. Lengths: {results['corpus']}. The model is a transformer of d_model "
        f"{config['d_model']} with {layers} per encoder; batches of up to {config['batch_size']} are gathered for "
        f"{config['max_delay_ms']:g} ms at most. One by one: batches of one, at their own planned shape; one thread "
        f"answers {results['unit']:,.0f} a second. Real positions are those at the highest load.",
    )


def _told(row: dict[str, Any]) -> str:
    text = f"{row['p50_ms']:,.0f} / {row['p99_ms']:,.0f}"
    return f"{text} ({row['answered_per_second']:,.0f}/s)" if row["refused"] else text


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(table(results).markdown(), measured_on(results))


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw p99 against the offered load."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["way"] for row in results["rows"]):
        rows = [row for row in results["rows"] if row["way"] == name]
        axes.plot([row["offered_per_second"] for row in rows], [row["p99_ms"] for row in rows], "o-", label=name)
    axes.set(xscale="log", yscale="log", xlabel="requests offered per second", ylabel="p99 latency in ms")
    axes.legend()
    figure.savefig(path, dpi=150)


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("serving", __doc__, data_dir="MELD's three CSV files (default: synthetic lengths)")
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, **(QUICK if options.quick else {}))
    return run_experiment("serving", arguments, options.out, lambda progress: run(config, progress), markdown, draw)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
