"""How long until the first step, with everything compiled before it, and what the compilation cache saves?

Each start is a process of its own that trains a policy from nothing: twice without the persistent compilation
cache, once with an empty one, and once with the one that the start before it filled. Then warming up the 8 planned
shapes against compiling one after the other, what looking a step up costs, and how well the rows that fit a limit of
memory are predicted.

With Python: python -m experiments.start_up --data-dir DIR --out results/start_up/mine
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.command_line import command_line
from experiments.lib.output import write_results
from experiments.lib.provenance import measured_on
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.sources import Meld

STARTS = ("without_first", "without_second", "empty_cache", "filled_cache")
"""Kinds of starts, in order; the last two share a folder."""


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    data_dir: str | None = None
    policies: tuple[str, ...] = ("exact/random", "powers_of_two/length", "planned_8/length")
    planned: str = "planned_8/length"
    modalities: tuple[str, ...] | None = None
    samples: int | None = None
    epochs: int = 10
    batch_size: int = 32
    steps: int = 10
    rounds: int = 3
    bytes_limit: float | str = 5e8


QUICK = {
    "policies": ("exact/random", "planned_2/length"),
    "planned": "planned_2/length",
    "modalities": ("text",),
    "samples": 64,
    "epochs": 1,
    "batch_size": 8,
    "steps": 2,
    "rounds": 1,
    "bytes_limit": 1e8,  # on a GPU, matrix products alone have some 30 MB to work in
}
"""Options under --quick, to check that everything works."""


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything, each part in a process of its own, so that none finds programs of another."""
    parts = len(STARTS) * len(config.policies) + 3
    task = progress.add_task("starting", total=parts)

    def part(name: str, **options: Any) -> dict[str, Any]:
        progress.update(task, description=" ".join([name, *map(str, options.values())][:3]))
        command = [sys.executable, "-m", "experiments.start_up.part", name]
        given = {**asdict(config), **options, "started": time.time()}
        # A part uses only the cache that it is given.
        environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
        done = subprocess.run(
            [*command, json.dumps(given)], capture_output=True, text=True, check=False, env=environment
        )
        if done.returncode:
            raise PaddingError(f"the part {name!r} of the experiment failed:\n{done.stderr}")
        progress.advance(task)
        return json.loads(done.stdout.splitlines()[-1])

    starts = []
    for policy in config.policies:
        with tempfile.TemporaryDirectory() as folder:
            for kind in STARTS:
                cache_dir = str(Path(folder, "cache")) if kind.endswith("cache") else None
                starts.append({"policy": policy, "start": kind, **part("start", policy=policy, cache_dir=cache_dir)})
    return {
        "config": asdict(config),
        "corpus": "synthetic" if config.data_dir is None else "MELD",
        "starts": starts,
        "warming": part("warming"),
        "dispatch": part("dispatch"),
        "batch_sizes": part("batch_sizes"),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the table, the findings, and where they were measured."""
    config = results["config"]
    starts = {(row["policy"], row["start"]): row for row in results["starts"]}
    policies = list(dict.fromkeys(row["policy"] for row in results["starts"]))
    first = starts[policies[0], STARTS[0]]
    heading = [
        "",
        "shapes",
        "no cache, first start",
        "no cache, second start",
        "empty cache",
        "filled cache",
        f"compiled in steps 2 to {first['steps']}",
    ]
    cells = []
    for policy in policies:
        rows = [starts[policy, kind] for kind in STARTS]
        times = [f"{row['seconds_to_first_step']:,.0f} s, {row['seconds_to_last_step']:,.0f} s" for row in rows]
        late = [row["compiled_after_first_step"] for row in rows]
        shapes = f"{rows[0]['shapes']:,}"
        compiled = f"{late[0]} ({late[-1]} with the filled cache)" if late[0] else "0"
        cells.append([policy.replace("_", " ").replace("/", ", "), shapes, *times, compiled])
    told = (_tell_warming, _tell_dispatch, _tell_batch_sizes)
    table = Table(
        "Until the first step",
        heading,
        cells,
        f"Seconds from the start of the process to the end of the first step, and of step {first['steps']}; "
        f"{results['corpus']}, batches of {config['batch_size']}.",
        findings=" ".join(tell(results) for tell in told),
    )
    return paragraphs(table.markdown(), measured_on(results))


def _tell_warming(results: dict[str, Any]) -> str:
    warming = results["warming"]
    lazy, warm = warming["lazy_seconds"], warming["warm_up_seconds"]
    return (
        f"Warming up {warming['shapes']} shapes on 2 threads takes {_spread(warm)}, compiling them one by one "
        f"{_spread(lazy)}: {np.median(lazy) / np.median(warm):.2f} times as long (medians of {len(lazy)}, in "
        "alternation)."
    )


def _tell_dispatch(results: dict[str, Any]) -> str:
    dispatch = results["dispatch"]
    low, high = dispatch["overhead_us_quartiles"]
    return (
        f"A step through the table takes {dispatch['overhead_us_median']:.1f} µs more than through the compiled object "
        f"alone (middle half {low:.1f} to {high:.1f} µs, of {dispatch['compiled_us_median']:.0f} µs)."
    )


def _tell_batch_sizes(results: dict[str, Any]) -> str:
    sizes = results["batch_sizes"]
    off = [abs(row["predicted"] / row["bytes"] - 1) for row in sizes["predictions"]]
    full = [row["bytes"] / sizes["limit"] for row in sizes["shapes"] if row["rows"] < row["most"]]
    rows = ", ".join(f"{row['rows']:,}" for row in sizes["shapes"])
    return (
        f"`fit_batch_sizes` within {sizes['limit'] / 1e6:,.0f} MB, headroom taken off: {rows} rows, "
        f"{sizes['compilations']} compilations, "
        f"{sizes['seconds']:,.0f} s"
        + (f"; what its lines predicted is within {100 * max(off):.1f} % of XLA's analysis" if off else "")
        + (f", and the limit {100 * min(full):.0f} to {100 * max(full):.0f} % full." if full else ".")
    )


def _spread(seconds: list[float]) -> str:
    return f"{np.median(seconds):.0f} s ({min(seconds):.0f} to {max(seconds):.0f})"


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("start_up", __doc__, data_dir="MELD's three CSV files (default: synthetic samples)")
    parser.add_argument(
        "--bytes-limit",
        metavar="BYTES",
        help='for the batch sizes; "device" for what the device reports (default: 5e8)',
    )
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _limit(text: str) -> float | str:
    if text == "device":
        return text
    try:
        return float(text)
    except ValueError:
        raise PaddingError(f'got --bytes-limit {text}; give a number of bytes, or "device"') from None


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    limit = {} if options.bytes_limit is None else {"bytes_limit": _limit(options.bytes_limit)}
    config = Config(options.data_dir, **{**(QUICK if options.quick else {}), **limit})
    if options.data_dir is not None:
        Meld(options.data_dir, "train")  # so that a wrong folder is an error before the first start
    write_results("start_up", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
