"""What a machine with an accelerator does with this library, in one command of at most 8 minutes.

Parts, one after the other, each in a process of its own:

  device        what the device is, and its FLOP/s in large matrix products
  checks        attention and model against float64 on the host, per implementation, dtype and matmul precision;
                NaN in the padding; the same call twice
  packed        compile seconds, step milliseconds, memory, samples per second (batcher included), and seconds to the
                first step of a fresh process, of the model of `make compare` on packed batches
  packed_second_start
                seconds to the first step with the compilation cache that the part packed filled
  float32       the same as packed, per batch shape of planned shapes; samples per second of planned and fixed padding
  second_start  seconds to the first step with the compilation cache that the part float32 filled
  packed_bfloat16, bfloat16
                the same as packed and float32 for a model of width 256 and 4 layers in bfloat16
  torch         the same two models in PyTorch on the same device, executed eagerly

Every part writes its figures as it goes, and results.json is written anew after every part: a run that is cut off, or
stopped by Ctrl-C, keeps what it has, and its table lists what is missing. Where --minutes is short, fewer batch shapes
are measured: the largest, the smallest and those of most steps first. Without a GPU everything runs on the CPU.

With Python: python -m experiments.accelerator --minutes 8
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.accelerator.config import QUICK_MINUTES, Config, quick
from experiments.accelerator.parts import PARTS, RESULTS, Run
from experiments.accelerator.record import read
from experiments.accelerator.report import markdown
from experiments.lib import corpora
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.sources import Meld


def folder_name(kind: str) -> str:
    """Turn the kind of a device into a folder's name.

    >>> folder_name("NVIDIA H100 80GB HBM3")
    'nvidia-h100-80gb-hbm3'
    """
    return re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-") or "device"


def main(arguments: list[str]) -> int:
    """Run and write the results; return the exit status: 2 where a part failed, 0 also where time ran out."""
    names = [part.name for part in PARTS]
    parser = argparse.ArgumentParser(
        prog="python -m experiments.accelerator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--minutes",
        type=float,
        metavar="M",
        help=f"for all parts together (default: {Config().minutes:g}, and {QUICK_MINUTES:g} with --quick)",
    )
    parser.add_argument(
        "--data-dir", metavar="DIR", help="MELD's three CSV files (default: synthetic lengths that follow MELD's)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=names,
        default=names,
        metavar="PART",
        help=f"of {', '.join(names)}; device runs in any case",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="default: results/accelerator/<kind of the device>")
    parser.add_argument("--quick", action="store_true", help="a tiny run, to see that everything works")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(options, arguments))


def _run(options: argparse.Namespace, arguments: list[str]) -> None:
    default = QUICK_MINUTES if options.quick else Config().minutes
    minutes = default if options.minutes is None else options.minutes
    if not minutes > 0:
        raise PaddingError(f"got --minutes {minutes:g}; give more than 0")
    if options.data_dir is not None:
        Meld(options.data_dir, "train")  # so that a wrong folder is an error before the first process
    if options.out is not None:
        _check_free(options.out)
    corpus = corpora.on_corpus(options.data_dir)
    config = replace(Config(corpus), minutes=minutes, arguments=tuple(arguments))
    config = quick(config) if options.quick else config
    console = Console(stderr=True)
    made: list[Path] = []

    def begin(origin: dict[str, Any]) -> Path:
        folder = options.out or Path("results", "accelerator", folder_name(origin["device"]["kind"]))
        _check_free(folder)
        folder.mkdir(parents=True)
        made.append(folder)
        return folder

    with tempfile.TemporaryDirectory() as folder:
        chosen = tuple(part for part in PARTS if part.name in ("device", *options.only))
        cache = Path(folder, "cache")
        run = Run(config, chosen, cache, begin, lambda line: console.print(line, markup=False, soft_wrap=True))
        try:
            run.measure()
        finally:
            for out in made:
                print(markdown(read(out / RESULTS)))
                print(f"Written: {out / RESULTS}")
    if run.failed:
        raise PaddingError(
            f"the parts {run.failed} have failed; their messages are above, and what was measured is in "
            f"{made[0] / RESULTS}"
        )


def _check_free(out: Path) -> None:
    if out.exists():
        raise PaddingError(f"{out} exists; name another folder with --out, so that nothing is overwritten")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
