"""How long does it take to convert a folder of MERTools' feature files, and how much of its own padding is real?

7,000 samples in three splits, each with three features at 50 Hz, 1,024 wide, float32, a ``.npy`` file each, and labels
in an ``.npz``: about 13 GB, which are generated here, and as much again for the cache. Utterances last as long as
MELD's do (3.1 s on average, 28.5 s at most). ``multimodal-pad convert files`` and ``inspect`` run in processes of their
own; before each, the features are dropped from the system's page cache, so that they are read from the disk.

MERTools pads every sample of a split, on the left, to the longest one (``frm_unalign``) as it loads them, in float64.

With Python: python -m experiments.sources.feature_files --out results/sources/feature_files/mine
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.tables import Table, paragraphs, spread
from experiments.sources.conversion import measure, shown_size
from multimodal_pad import LengthTable, TransformerCost, plan_packing
from multimodal_pad.planning.comparison import packing_efficiency
from multimodal_pad.sources import Synthetic
from multimodal_pad.sources.inspection import compare_policies
from multimodal_pad.sources.synthetic import AUDIO_RATE

SPLITS = {"train": 5000, "val": 1000, "test1": 1000}
FEATURES = {
    "audio": "features/chinese-hubert-large-FRA",
    "text": "features/chinese-macbert-large-FRA",
    "visual": "features/clip-vit-large-patch14-FRA",
}
EMOTIONS = ("neutral", "angry", "happy", "sad", "worried", "surprise")


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    repeats: int = 3
    share: float = 1.0
    rate: float = 50.0
    width: int = 1024
    max_shapes: int = 8
    batch_size: int = 32


QUICK = {"repeats": 1, "share": 0.004, "width": 16}
"""Options under --quick, to check that everything works."""

OPEN = """
import sys
from multimodal_pad.sources import Files
root, split, *features = sys.argv[1:]
Files(root, split, table="label-6way.npz", features=dict(pair.split("=") for pair in features), targets="emo").lengths
with open("/proc/self/status") as file:
    print(next(line.split()[1] for line in file if line.startswith("VmHWM")))
"""
"""Program that reads only lengths, from the headers of a split's files."""


def draw_frames(samples: int, rate: float, seed: int) -> np.ndarray:
    """Draw frames of utterances that last as long as in MELD."""
    seconds = Synthetic(samples, seed=seed).lengths.select(["audio"]).values[:, 0] / AUDIO_RATE
    return np.maximum(1, np.rint(seconds * rate)).astype(np.int64)


@contextmanager
def generated(config: Config, tell: Callable[[int], None]) -> Iterator[tuple[Path, dict[str, np.ndarray], int]]:
    """Write a folder like MERTools', beside this one; return the frames of each split, and the bytes of all files."""
    counts = {split: max(4, round(config.share * count)) for split, count in SPLITS.items()}
    frames = {split: draw_frames(count, config.rate, seed) for seed, (split, count) in enumerate(counts.items())}
    needed = 2 * sum(int(lengths.sum()) for lengths in frames.values()) * len(FEATURES) * config.width * 4
    free = shutil.disk_usage(Path.cwd()).free
    if needed > 0.9 * free:
        raise OSError(errno.ENOSPC, f"takes {needed / 1e9:.0f} GB of disk, and {free / 1e9:.0f} GB are free; make room")
    rng = np.random.default_rng(0)
    longest = max(int(lengths.max()) for lengths in frames.values())
    values = rng.standard_normal((2 * longest, config.width), np.float32)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".feature-files-") as folder:
        root, done = Path(folder), 0
        for place in FEATURES.values():
            (root / place).mkdir(parents=True)
        corpora = {}
        for split, lengths in frames.items():
            names = [f"{split}_sample_{number:08d}" for number in range(len(lengths))]
            for name, length in zip(names, lengths.tolist(), strict=True):
                for place in FEATURES.values():
                    start = int(rng.integers(len(values) - length + 1))
                    np.save(root / place / f"{name}.npy", values[start : start + length])
                done += 1
                tell(done)
            emotions = rng.integers(0, len(EMOTIONS), len(names)).tolist()
            corpora[f"{split}_corpus"] = {
                name: {"emo": EMOTIONS[emotion], "val": -10} for name, emotion in zip(names, emotions, strict=True)
            }
        np.savez_compressed(root / "label-6way.npz", **corpora)
        yield root, frames, sum(path.stat().st_size for path in root.rglob("*") if path.is_file())


def forget(root: Path) -> None:
    """Make the system write the files to the disk, and drop them from its page cache."""
    os.sync()
    if hasattr(os, "posix_fadvise"):
        for path in root.rglob("*.np[yz]"):
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    total = sum(max(4, round(config.share * count)) for count in SPLITS.values())
    writing = progress.add_task("writing features", total=total)
    with generated(config, lambda done: progress.update(writing, completed=done)) as (root, frames, size):
        features = [f"{name}={place}" for name, place in FEATURES.items()]
        command = ["convert", "files", str(root), "--table", "label-6way.npz", "--targets", "emo"]
        command += [part for feature in features for part in ("--features", feature)]
        task = progress.add_task("converting", total=config.repeats)
        opening, converting, inspecting, sizes = [], [], [], []
        for _ in range(config.repeats):
            forget(root)
            opening.append(measure([str(root), "train", *features], OPEN))
            forget(root)
            with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".feature-files-") as folder:
                cache = str(Path(folder, "cache"))
                converting.append(measure([*command[:3], cache, *command[3:]]))
                inspecting.append(measure(["inspect", cache]))
                sizes.append(sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file()))
            progress.advance(task)
    return {
        "config": asdict(config),
        "samples": {split: len(lengths) for split, lengths in frames.items()},
        "files": total * len(FEATURES),
        "input_bytes": size,
        "cache_bytes": sizes[0],
        "open": opening,
        "convert": converting,
        "inspect": inspecting,
        "seconds_of_a_sample": float(np.concatenate(list(frames.values())).mean() / config.rate),
        "longest": int(frames["train"].max()),
        "padded_by_mertools_bytes": sum(padded_bytes(found, config.width) for found in frames.values()),
        "policies": compare(LengthTable.from_columns(dict.fromkeys(FEATURES, frames["train"])), config),
    }


def padded_bytes(frames: np.ndarray, width: int) -> int:
    """Count the bytes of a split after ``frm_unalign``, which puts zeros of float64 before shorter samples."""
    longest = int(frames.max())
    full = int((frames == longest).sum())
    return ((len(frames) - full) * 8 + full * 4) * longest * width * len(FEATURES)


def compare(lengths: LengthTable, config: Config) -> dict[str, Any]:
    """Compute how much of the training split is real under each padding, that of the whole corpus first."""
    packing = plan_packing(lengths, batch_size=config.batch_size)
    found = compare_policies(lengths, None, config.batch_size, config.max_shapes)
    packed = packing_efficiency(packing, lengths, TransformerCost(lengths.modalities))
    return {name: row._asdict() for name, row in {**found, f"packed {len(packing)}": packed}.items()}


NAMES = {
    "fixed, longest": "to the longest sample (`frm_unalign`)",
    "exact, random": "random batches to their own longest",
}
"""Names of the policies in the table."""


def tables(results: dict[str, Any]) -> list[Table]:
    """Make a table of converting, and one of what padding leaves real."""
    config, size = results["config"], results["input_bytes"]
    columns: list[tuple[str, Callable[[], str]]] = [
        ("samples", lambda: f"{sum(results['samples'].values()):,}"),
        ("files", lambda: f"{results['files']:,}"),
        ("input", lambda: shown_size(size)),
        ("lengths alone (training split)", lambda: f"{_spread(results['open'], 'seconds', '.1f')} s"),
        ("convert", lambda: f"{_spread(results['convert'], 'seconds', '.0f')} s"),
        ("MB/s", lambda: spread([size / 1e6 / found["seconds"] for found in results["convert"]], ".0f")),
        ("peak memory", lambda: f"{_spread(results['convert'], 'peak_mib', '.0f')} MiB"),
        ("padded by MERTools in memory", lambda: shown_size(results["padded_by_mertools_bytes"])),
    ]
    converting = Table(
        "Converting a folder of feature files",
        [name for name, _ in columns],
        [[cell() for _, cell in columns]],
        text_columns=0,
        note=(
            f"Medians of {config['repeats']} runs, with the middle half in brackets; each run is a process of its own, "
            "imports included, and reads the files from the disk. Converting reads them twice, once for their SHA-256. "
            "Peak memory is what was resident (VmHWM), without the system's page cache."
        ),
    )
    policies: dict[str, Any] = results["policies"]
    least = policies[f"planned {config['max_shapes']}, length"]["padded_cost"]
    padding = Table(
        "What padding leaves real",
        ["padding of the training split", "shapes", "real positions", "real cost", "padded cost"],
        [
            [
                NAMES.get(name, name),
                f"{found['shapes']:,}",
                f"{min(found['positions']):.3f}",
                f"{found['cost']:.3f}",
                f"{found['padded_cost'] / least:.2f} x",
            ]
            for name, found in policies.items()
        ],
        note=_note(results),
    )
    return [converting, padding]


def _note(results: dict[str, Any]) -> str:
    config = results["config"]
    return (
        f"Three features at {config['rate']:g} Hz, {config['width']:,} wide, of utterances as long as MELD's: "
        f"{results['seconds_of_a_sample']:.1f} s on average, {results['longest']:,} frames at most; batches of "
        f"{config['batch_size']}. The cost is `TransformerCost`'s, in FLOPs."
    )


def _spread(runs: list[dict[str, float]], key: str, form: str) -> str:
    return spread([found[key] for found in runs], form)


def markdown(results: dict[str, Any]) -> str:
    """Return both tables, and where they were measured."""
    from experiments.lib.provenance import measured_on

    return paragraphs(*(table.markdown() for table in tables(results)), measured_on(results))


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("sources.feature_files", __doc__)
    options = parser.parse_args(arguments)
    config = Config(**(QUICK if options.quick else {}))
    return run_experiment(
        "sources.feature_files", arguments, options.out, lambda progress: run(config, progress), markdown
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
