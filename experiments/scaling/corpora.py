"""How long until the first batch of a large corpus, in how much memory, and how long until a run is resumed?

The length table lies in a file that is memory-mapped; each measurement is a process of its own, whose peak memory
is then its own. Samples are a few zeros, so that only the batcher is measured.

With Python: python -m experiments.scaling.corpora --out results/scale/mine
"""

from __future__ import annotations

import argparse
import json
import re
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
from experiments.lib.distributions import MODALITIES, log_normal_lengths
from experiments.lib.output import write_results
from experiments.lib.reference_cost import reference_cost
from experiments.lib.tables import Table, paragraphs
from multimodal_pad import BucketBatcher, LengthTable, Planned, ShapePlan, plan_shapes
from multimodal_pad.cli import exit_status
from multimodal_pad.lengths.samples import EMPTY

PLANNED_FROM = 100_000


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    samples: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
    shapes: int = 8
    batch_size: int = 32
    repeats: int = 3


class Zeros:
    """Samples of one zero per position."""

    def __init__(self, lengths: LengthTable) -> None:
        self.lengths = lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        row = self.lengths.values[index].tolist()
        return {name: np.zeros((length, 1), np.float32) for name, length in zip(MODALITIES, row, strict=True)}


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    task = progress.add_task("measuring", total=len(config.samples) * config.repeats)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for samples in config.samples:
            progress.update(task, description=f"{samples:,} samples")
            lengths = log_normal_lengths(samples)
            np.save(Path(folder, "lengths.npy"), lengths)
            # The first samples and the longest of each modality, so that the plan holds all.
            planned = LengthTable(MODALITIES, np.vstack([lengths[:PLANNED_FROM], lengths.max(axis=0)]))
            options = {"cost": reference_cost, "alignment": 8, "batch_size": config.batch_size}
            plan = plan_shapes(planned, max_shapes=config.shapes, **options)
            plan.save(Path(folder, "plan.json"), overwrite=True)
            del lengths, planned
            parts = []
            for _ in range(config.repeats):
                command = [sys.executable, "-m", "experiments.scaling.corpora", "--part", folder]
                parts.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
                progress.advance(task)
            rows.append({"samples": samples, "parts": parts})
    return {"config": asdict(config), "rows": rows}


def measure(folder: Path) -> dict[str, Any]:
    """Measure in one process."""
    imported = _peak_gib()
    begun = time.perf_counter()
    batcher = _open(folder)
    next(batcher.epoch(0))
    first, peak = time.perf_counter() - begun, _peak_gib()
    schedule = batcher.schedule(0)
    real = sum(int((part.ids != EMPTY).sum()) for part in schedule.parts())
    if real != len(batcher.lengths):
        raise AssertionError(f"{real} samples are in the epoch, of {len(batcher.lengths)}")
    resumed = {}
    for where, step in (("start", 0), ("middle", len(schedule) // 2), ("end", len(schedule) - 1)):
        state = {**batcher.state(), "step": step}
        begun = time.perf_counter()
        other = _open(folder)
        opened = time.perf_counter()
        other.restore(state)
        restored = time.perf_counter()
        next(other.epoch(0))
        resumed[where] = {
            "open": opened - begun,
            "restore": restored - opened,
            "batch": time.perf_counter() - restored,
        }
    return {
        "steps": len(schedule),
        "seconds_to_first_batch": first,
        "peak_gib": peak,
        "imported_gib": imported,
        "table_gib": batcher.lengths.values.nbytes / 2**30,
        "resumed": resumed,
    }


def _open(folder: Path) -> BucketBatcher:
    lengths = LengthTable(MODALITIES, np.load(folder / "lengths.npy", mmap_mode="r"))
    plan = ShapePlan.load(folder / "plan.json", cost=reference_cost)
    return BucketBatcher(Zeros(lengths), Planned(plan), prefetch=0)


def _peak_gib() -> float:
    """Return the peak resident memory of this program; getrusage would include the parent's at the time of the fork."""
    found = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="utf-8"))
    if found is None:
        raise OSError("/proc/self/status has no VmHWM; this experiment needs Linux")
    return int(found[1]) / 2**20


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on  # imports JAX, whose memory would count in a part's process

    rows = []
    for row in results["rows"]:
        parts = row["parts"]
        beside = np.median([part["peak_gib"] - part["imported_gib"] - part["table_gib"] for part in parts])
        seconds = [
            np.median([sum(part["resumed"][where].values()) for part in parts]) for where in ("start", "middle", "end")
        ]
        cells = [
            f"{row['samples']:,}",
            f"{parts[0]['steps']:,}",
            f"{np.median([part['seconds_to_first_batch'] for part in parts]):.2f} s",
            f"{max(0.0, beside):.2f} GiB",
            *(f"{second:.2f} s" for second in seconds),
        ]
        rows.append(cells)
    config, last = results["config"], results["rows"][-1]["parts"]
    restoring = [part["resumed"][at]["restore"] for part in last for at in part["resumed"]]
    table = Table(
        "The first batch of large corpora",
        ["samples x 3", "steps", "first batch", "memory beside the table", "resume at the start", "middle", "end"],
        rows,
        f"Log-normal lengths, {config['shapes']} planned shapes, batches of {config['batch_size']}; medians of "
        f"{config['repeats']} processes. First batch and resuming count from the file of lengths to the batch, with "
        "the epoch's order and the table's fingerprint. Memory is the peak without the imports and without the "
        f"memory-mapped table ({last[0]['table_gib']:.2f} GiB for the largest).",
        text_columns=0,
        findings=f"Restoring alone takes {np.median(restoring):.1f} s for the largest, at any step; most of that is "
        "the order of the epoch.",
    )
    return paragraphs(table.markdown(), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("scaling.corpora", __doc__)
    parser.add_argument("--part", type=Path, metavar="DIR", help="only measure, on the table and plan in a folder")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    if options.part:
        print(json.dumps(measure(options.part)))
        return
    config = Config(samples=(500, 2000), shapes=2, repeats=1) if options.quick else Config()
    write_results("scaling.corpora", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
