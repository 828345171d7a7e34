"""How long does it take to convert a corpus, in how much memory, and how much of its own padding is real?

``multimodal-pad convert`` and ``inspect``, each a process of its own, on a file as large as MulT's CMU-MOSI (1,284, 229
and 686 samples, padded to 50, 375 and 500), with --large on one as large as CMU-MOSEI (12.7 GB of float64), and with
--data-dir on MELD, whose audio and video are noise as long as the utterances. The pickles are generated, with lengths
that follow MELD's; values don't matter here.

With Python: python -m experiments.sources.conversion --data-dir DIR --large --out results/conversion/mine
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.tables import Table, paragraphs
from multimodal_pad.sources import Synthetic
from multimodal_pad.sources.inspection import inspect_cache
from tests.helpers.corpora import write_mult

MOSI = {"train": 1284, "valid": 229, "test": 686}
MOSEI = {"train": 16326, "valid": 1871, "test": 4659}
AUDIO, VISUAL = 12.5, 15.0
"""Frames per second, at which the longest utterance, of 28.5 s, is about as long as MOSI's files are padded."""


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    data_dir: str | None = None
    large: bool = False
    repeats: int = 3
    share: float = 1.0
    max_shapes: int = 8
    batch_size: int = 32


QUICK = {"repeats": 1, "share": 0.02}
"""Options under --quick, to check that everything works."""


def mosi_lengths(samples: int, seed: int, longest: tuple[int, ...]) -> np.ndarray:
    """Draw words, audio and video frames of utterances as in MELD, at most as many as the file holds."""
    words, audio, visual = Synthetic(samples, seed=seed).lengths.values.T  # at 20 and 15 Hz
    lengths = np.stack([words, audio * AUDIO / 20, visual * VISUAL / 15], axis=1)
    return np.clip(np.rint(lengths), 1, longest).astype(np.int64)


@contextmanager
def pickled(corpus: str, counts: dict[str, int], config: Config) -> Iterator[Path]:
    """Write a pickle as large as a corpus to a temporary folder; its arrays are made on the disk, too."""
    counts = {split: max(2, round(config.share * count)) for split, count in counts.items()}
    longest = (50, 375, 500) if corpus == "mosi" else (50, 500, 500)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".conversion-") as folder:
        parts = iter(range(100))

        def on_disk(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
            array = np.lib.format.open_memmap(Path(folder, f"part{next(parts)}.npy"), "w+", dtype, shape)
            return array.view(np.ndarray)

        lengths = {split: mosi_lengths(count, seed, longest) for seed, (split, count) in enumerate(counts.items())}
        written = write_mult(Path(folder), corpus, counts=counts, lengths=lengths, zeros=on_disk)
        for part in Path(folder).glob("part*.npy"):
            part.unlink()
        yield written.path


RUN = """
import sys
from multimodal_pad.cli import main
status = main(sys.argv[1:])
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
sys.exit(status)
"""
"""Program that runs a command and prints its peak at the end: the system's figure for children includes the parent."""


def measure(command: list[str], program: str = RUN) -> dict[str, float]:
    """Measure seconds and peak memory of a process, which prints its peak at the end."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *command], stdout=subprocess.PIPE, text=True, check=True)
    return {"seconds": time.perf_counter() - begun, "peak_mib": int(done.stdout.split()[-1]) / 1024}


def run_corpus(name: str, source: list[str], size: int, config: Config, progress: Progress) -> dict[str, Any]:
    """Convert and inspect a few times, and compute how much of each padding is real."""
    task = progress.add_task(name, total=config.repeats)
    converting, inspecting, inspections = [], [], []
    for _ in range(config.repeats):
        with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".conversion-") as folder:
            cache = str(Path(folder, "cache"))
            converting.append(measure(["convert", *source, cache]))
            inspecting.append(measure(["inspect", cache]))
            inspections.append(inspect_cache(cache, batch_size=config.batch_size, max_shapes=config.max_shapes))
        progress.advance(task)
    found = inspections[0]
    return {
        "corpus": name,
        "samples": {split: facts["samples"] for split, facts in found.manifest["splits"].items()},
        "padded_to": found.manifest["splits"][found.split]["padded_to"],
        "input_bytes": size,
        "cache_bytes": found.bytes,
        "convert": converting,
        "inspect": inspecting,
        "policies": {policy: row._asdict() for policy, row in found.policies.items()},
    }


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    rows = []
    sizes = {"as large as CMU-MOSI": ("mosi", MOSI)}
    if config.large:
        sizes["as large as CMU-MOSEI"] = ("mosei_senti", MOSEI)
    for name, (corpus, counts) in sizes.items():
        with pickled(corpus, counts, config) as path:
            rows.append(run_corpus(name, ["mult", str(path)], path.stat().st_size, config, progress))
    if config.data_dir is not None:
        size = sum(path.stat().st_size for path in Path(config.data_dir).glob("*_sent_emo.csv"))
        rows.append(run_corpus("MELD", ["meld", config.data_dir, "--noise"], size, config, progress))
    return {"config": asdict(config), "rows": rows}


def markdown(results: dict[str, Any]) -> str:
    """Return two tables, what converting takes and what padding costs, and where they were measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(*(table.markdown() for table in tables(results)), measured_on(results))


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of conversions, and one of what padding leaves real."""
    config = results["config"]
    converted = [
        [
            row["corpus"],
            f"{sum(row['samples'].values()):,}",
            shown_size(row["input_bytes"]),
            shown_size(row["cache_bytes"]),
            f"{_median(row['convert'], 'seconds'):.1f} s",
            f"{_median(row['convert'], 'peak_mib'):,.0f} MiB",
            f"{_median(row['inspect'], 'seconds'):.1f} s",
        ]
        for row in results["rows"]
    ]
    padded_rows = []
    for row in results["rows"]:
        least = list(row["policies"].values())[-1]["padded_cost"]
        for name, found in row["policies"].items():
            shares = [f"{share:.3f}" for share in (*found["positions"], found["cost"])]
            padded = " / ".join(map(str, row["padded_to"].values())) if name.endswith("in the file") else ""
            label = f"{name} ({padded})" if padded else name
            cells = [row["corpus"], label, f"{found['shapes']:,}", *shares, f"{found['padded_cost'] / least:.2f} x"]
            padded_rows.append(cells)
    return [
        Table(
            "What converting takes",
            ["corpus", "samples", "input", "cache", "convert", "peak memory", "inspect"],
            converted,
            f"Medians of {config['repeats']} runs, each a process of its own, imports included. The pickles are "
            "generated, with lengths that follow MELD's.",
        ),
        Table(
            "What padding leaves real",
            [
                "corpus",
                "padding of the training split",
                "shapes",
                *(f"real {name}" for name in ("text", "audio", "visual")),
                "real cost",
                "padded cost",
            ],
            padded_rows,
            f"Batches of {config['batch_size']}. Real text, audio and visual are shares of positions; the cost is "
            "`TransformerCost`'s, in FLOPs.",
            text_columns=2,
        ),
    ]


def shown_size(size: int) -> str:
    """Format bytes, for a table."""
    return f"{size / 1e9:,.2f} GB" if size > 1e9 else f"{size / 1e6:,.1f} MB"


def _median(runs: list[dict[str, float]], key: str) -> float:
    return float(np.median([found[key] for found in runs]))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("sources.conversion", __doc__, data_dir="MELD's three CSV files")
    parser.add_argument("--large", action="store_true", help="a file as large as CMU-MOSEI, too: 40 GB of disk")
    options = parser.parse_args(arguments)
    config = Config(options.data_dir, options.large, **(QUICK if options.quick else {}))
    return run_experiment(
        "sources.conversion", arguments, options.out, lambda progress: run(config, progress), markdown
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
