"""The parts of a run: each in a process of its own with a limit, each with a file of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from experiments.accelerator.budget import Allotment, Budget, Clock
from experiments.accelerator.config import Config
from experiments.accelerator.record import Record, read, write
from experiments.lib.worker import start
from multimodal_pad import PaddingError

RESULTS = "results.json"

NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "false"}
"""Environment of a part that uses no compilation cache."""

SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
"""Environment in which XLA takes memory as needed, instead of three quarters of the device at once."""


class Part(NamedTuple):
    """One part of a run.

    Attributes:
        name: of its file.
        module: whose ``measure(name, config, record, clock, cache_dir)`` it runs.
        share: of the time, as a weight.
        says: what it measures.
        environment: variables of its process.
    """

    name: str
    module: str
    share: float
    says: str
    environment: dict[str, str] = NO_CACHE | SHARING


_HERE = "experiments.accelerator"

PARTS = (
    Part("device", f"{_HERE}.device", 5, "the device, and its FLOP/s in large matrix products"),
    Part("checks", f"{_HERE}.checks", 12, "attention and model against float64, NaN in the padding, determinism"),
    Part(
        "packed",
        f"{_HERE}.steps",
        9,
        "compile seconds, step milliseconds, samples per second and memory of the small model on packed batches",
    ),
    Part("packed_second_start", f"{_HERE}.second_start", 4, "seconds to its first step with the filled cache"),
    Part("float32", f"{_HERE}.steps", 28, "the same as packed, on padded batches"),
    Part("second_start", f"{_HERE}.second_start", 6, "seconds to its first step with the filled cache"),
    Part("packed_bfloat16", f"{_HERE}.steps", 9, "the same as packed, of the large model"),
    Part("bfloat16", f"{_HERE}.steps", 28, "the same as float32, of the large model"),
    Part(
        "torch",
        f"{_HERE}.torch_part",
        12,
        "the same models in PyTorch",
        NO_CACHE | SHARING | {"JAX_PLATFORMS": "cpu"},  # JAX only makes the parameters in this part
    ),
)


@dataclass
class Run:
    """A run through the parts, which keeps the results after each.

    Attributes:
        config: what to measure.
        parts: which.
        cache_dir: folder of the compilation cache of this run, empty at first.
        begin: called with the first part's figures; the folder to write. Later parts write into it.
        tell: called with a line when a part begins or ends.
        failed: names of the parts that raised an error, or whose process died.
    """

    config: Config
    parts: tuple[Part, ...]
    cache_dir: Path
    begin: Callable[[dict[str, Any]], Path]
    tell: Callable[[str], None] = print
    failed: list[str] = field(default_factory=list)

    def measure(self) -> Path:
        """Run every part; return the folder, with ``results.json`` in it.

        Raises:
            PaddingError: the first part failed, so that nothing is known of the device.
            KeyboardInterrupt: Ctrl-C; what was measured until then is in ``results.json``.
        """
        budget = Budget(60 * self.config.minutes, {part.name: part.share for part in self.parts})
        unfinished = {part.name: "not begun" for part in self.parts}
        seconds: dict[str, float] = {}
        folder = self.cache_dir.parent
        begun = time.perf_counter()
        for number, part in enumerate(self.parts):
            try:
                why = self._run(part, budget.allot(part.name), folder, seconds)
            except KeyboardInterrupt:
                unfinished[part.name] = "interrupted"
                raise
            else:
                unfinished.pop(part.name)
                if why is not None:
                    unfinished[part.name] = why
            finally:
                if number:
                    self._keep(folder, unfinished, seconds, time.perf_counter() - begun)
            if not number:
                origin = read(folder / f"{part.name}.json")
                if why is not None or not origin:
                    raise PaddingError(f"the part {part.name!r}: {why}; without it there is nothing to compare with")
                folder = self.begin(origin)
                write(folder / f"{part.name}.json", origin)
                self._keep(folder, unfinished, seconds, time.perf_counter() - begun)
        return folder

    def _run(self, part: Part, allotted: Allotment | None, folder: Path, seconds: dict[str, float]) -> str | None:
        """Run one part; return why it is not finished, or None."""
        if allotted is None:
            self.tell(f"{part.name}: no time left")
            return "no time left"
        self.tell(f"{part.name}: {part.says} ({allotted.seconds:,.0f} s)")
        begun = time.perf_counter()
        clock = Clock(time.time(), 0.9 * allotted.seconds)
        why = None
        arguments = (part, self.config, folder, clock, self.cache_dir)
        try:
            with start(
                part.name, _prepare, *arguments, patience=allotted.limit, environment=part.environment
            ) as worker:
                why = worker.first
        except TimeoutError:
            why = f"ended after {allotted.limit:,.0f} s, its limit"
        except RuntimeError as error:
            why = str(error).removeprefix(f"{part.name}: ")
            self.failed.append(part.name)
        finally:
            seconds[part.name] = round(time.perf_counter() - begun, 1)
        if why is not None:
            self.tell(f"    {why}")
        return why

    def _keep(self, folder: Path, unfinished: dict[str, str], seconds: dict[str, float], run_seconds: float) -> None:
        """Write ``results.json`` from the files of the parts."""
        first, *others = (part.name for part in self.parts)
        origin = read(folder / f"{first}.json")
        found = {name: read(folder / f"{name}.json") for name in others}
        values = {
            **origin,
            "config": asdict(self.config),
            "parts": {name: figures for name, figures in found.items() if figures},
            "unfinished": dict(unfinished),
            "seconds": dict(seconds),
            "run_seconds": round(run_seconds, 1),
        }
        write(folder / RESULTS, values)
        for unfinished_file in folder.glob(".*.part"):  # remains of a part that was ended while writing
            unfinished_file.unlink(missing_ok=True)


class LeftOut(Exception):  # noqa: N818 - no error: nothing is wrong
    """Raised where a part cannot be measured here; names what is missing."""


def _prepare(part: Part, config: Config, folder: Path, clock: Clock, cache_dir: Path) -> tuple[str | None, Any]:
    """Measure, in the process of a part; return why it was left out, or None."""
    module = import_module(part.module)
    try:
        module.measure(part.name, config, Record(folder / f"{part.name}.json"), clock, cache_dir)
    except LeftOut as missing:
        return f"left out: {missing}", None
    return None, None
