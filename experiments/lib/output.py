"""Write the results of an experiment, with their provenance and a picture."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from multimodal_pad.output import write_file, write_folder

Run = Callable[[Progress], dict[str, Any]]
"""A function that returns the results of an experiment, as JSON values."""

Markdown = Callable[[dict[str, Any]], str]
Draw = Callable[[dict[str, Any], Path], None]


def write_results(
    name: str, arguments: list[str], out: Path | None, run: Run, markdown: Markdown, draw: Draw | None = None
) -> None:
    """Run an experiment, write ``results.json`` with its provenance, and print the results as Markdown.

    ``name`` is the module's under ``experiments``, such as ``planning.calibration``. ``draw`` makes a picture of the
    results, named by its last part. If it fails or is interrupted, the results are kept beside ``out``, as
    ``{out}.unfinished.json``. ``run_seconds`` in the results is the time that measuring took.

    ``out`` is a folder, by default one of its own under ``results/`` and the experiment's name.
    """
    from experiments.lib.provenance import provenance  # imports JAX, which a large table's process does without

    # This process only names the device, and must leave the GPU's memory to the processes that measure.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    out = out or Path("results", *name.split("."), datetime.now().strftime("%Y-%m-%dT%H-%M-%S"))
    console = Console(stderr=True)
    origin = provenance(f"experiments.{name}", arguments)
    with write_folder(out) as folder:
        begun = time.perf_counter()
        with Progress(console=console, disable=not console.is_terminal) as progress:
            results = {**origin, **run(progress)}
        results["run_seconds"] = round(time.perf_counter() - begun, 1)
        written = json.dumps(results, indent=1) + "\n"
        (folder / "results.json").write_text(written, encoding="utf-8")
        try:
            if draw is not None:
                draw(results, folder / f"{name.rpartition('.')[2]}.png")
        except BaseException:
            kept = out.with_name(f"{out.name}.unfinished.json")
            with suppress(OSError):  # the disk may be full
                write_file(kept, written.encode())
                console.print(f"The picture is not drawn; the results are kept in {kept}", markup=False)
            raise
    print(markdown(results))
    print(f"Written: {out / 'results.json'}")
