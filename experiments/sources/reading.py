"""How long does it take to read one sample at random: from the flat cache, a TFDS dataset in array_record, an .npz?

All hold the same samples, of a file as large as MulT's CMU-MOSI that is generated with lengths that follow MELD's, and
everything lies in the page cache. A read is over when every value has been copied once, as padding does; each way reads
all training samples in the same random order, in turn.

With Python: python -m experiments.sources.reading --out results/reading/mine
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.command_line import command_line, run_experiment
from experiments.lib.tables import Table, paragraphs
from experiments.sources.conversion import MOSI, pickled
from experiments.sources.conversion import Config as Generated
from multimodal_pad.sources import Mult, NumpyDir, convert, tfds


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default."""

    repeats: int = 7
    share: float = 1.0
    seed: int = 0


QUICK = {"repeats": 2, "share": 0.02}
"""Options under --quick, to check that everything works."""

LEVELS = (50, 95)
"""Percentiles of the reads."""

Reader = Callable[[int], dict[str, np.ndarray]]


def readers(path: Path, folder: Path) -> tuple[dict[str, Reader], Any]:
    """Make a function per format that reads one sample; return them and the source of all."""
    from multimodal_pad.sources.unaligned_emotion import UnalignedEmotion
    from multimodal_pad.sources.unaligned_emotion import tfds as package

    source = Mult(path, "train")
    convert({"train": source}, folder / "cache")
    package.disable_progress_bar()
    builder = UnalignedEmotion(config="mosi", data_dir=folder / "tfds")
    builder.download_and_prepare(download_config=package.download.DownloadConfig(manual_dir=path.parent))
    (folder / "npz").mkdir()
    for index in range(len(source)):
        np.savez(folder / "npz" / f"{index}.npz", **source[index])

    def from_npz(index: int) -> dict[str, np.ndarray]:
        with np.load(folder / "npz" / f"{index}.npz") as arrays:
            return dict(arrays)

    dataset = tfds("unaligned_emotion/mosi", "train", targets="targets", ids="id", data_dir=folder / "tfds")
    places = {identity: place for place, identity in enumerate(dataset.ids)}
    order = [places[identity] for identity in source.ids]
    found: dict[str, Reader] = {
        "flat cache": NumpyDir(folder / "cache", "train").__getitem__,
        "TFDS, array_record": lambda index: dataset[order[index]],
        ".npz per sample": from_npz,
        "the pickle itself": source.__getitem__,
    }
    for name, read in found.items():  # checks that all read the same, and warms them up
        for index in range(len(source)):
            for key, value in source[index].items():
                if not np.array_equal(read(index)[key], value):
                    raise AssertionError(f"{name}, sample {index}: {key} differs")
    return found, source


def run(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure everything; return the results."""
    with (
        pickled("mosi", MOSI, Generated(share=config.share)) as path,
        tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".reading-") as folder,
    ):
        found, source = readers(path, Path(folder))
        task = progress.add_task("reading", total=config.repeats * len(found))
        seconds: dict[str, list[list[float]]] = {name: [] for name in found}
        for repeat in range(config.repeats):
            order = np.random.default_rng([config.seed, repeat]).permutation(len(source)).tolist()
            for name, read in found.items():
                seconds[name].append([_time(read, index) for index in order])
                progress.advance(task)
        sizes = [sum(array.nbytes for array in source[index].values()) for index in range(len(source))]
    return {
        "config": asdict(config),
        "samples": len(sizes),
        "mean_bytes": float(np.mean(sizes)),
        "tfds_versions": {name: version(name) for name in ("tensorflow-datasets", "array-record")},
        "rows": [
            {
                "name": name,
                # A percentile of each repeat keeps their spread without keeping every read.
                "percentiles": {
                    str(level): [float(np.percentile(times, level)) for times in all_times] for level in LEVELS
                },
                "mean": [float(np.mean(times)) for times in all_times],
            }
            for name, all_times in seconds.items()
        ],
    }


def _time(read: Reader, index: int) -> float:
    begun = time.perf_counter()
    for array in read(index).values():
        np.array(array)
    return time.perf_counter() - begun


def markdown(results: dict[str, Any]) -> str:
    """Return the table, and where it was measured."""
    from experiments.lib.provenance import measured_on

    rows = []
    first = np.median(results["rows"][0]["mean"])
    for row in results["rows"]:
        middle, high = (np.array(row["percentiles"][str(level)]) * 1e6 for level in LEVELS)
        mean = np.array(row["mean"]) * 1e6
        cells = [_spread(middle), _spread(high), _spread(mean), f"{np.median(mean) / first / 1e6:.1f} x"]
        rows.append([row["name"], *cells])
    packages = ", ".join(f"{name} {number}" for name, number in results["tfds_versions"].items())
    table = Table(
        "Reading a sample",
        ["", "median read", "95 % are below", "mean", "of the flat cache's"],
        rows,
        f"Microseconds to read a sample and copy its values: {results['samples']:,} samples of "
        f"{results['mean_bytes'] / 1e3:.1f} kB on average, as large as CMU-MOSI. Medians of "
        f"{results['config']['repeats']} rounds, in turn, with the middle half in brackets; {packages}.",
    )
    return paragraphs(table.markdown(), measured_on(results))


def _spread(values: np.ndarray) -> str:
    low, middle, high = (f"{value:.1f}" for value in np.percentile(values, [25, 50, 75]))
    return f"{middle} ({low} to {high})"


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status."""
    parser = command_line("sources.reading", __doc__)
    options = parser.parse_args(arguments)
    config = Config(**(QUICK if options.quick else {}))
    return run_experiment("sources.reading", arguments, options.out, lambda progress: run(config, progress), markdown)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
