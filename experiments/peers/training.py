"""Training, ours and PyTorch's, side by side: the same model from the same parameters on the same samples.

JAX has one process and PyTorch another. All contenders are warm before the first turn; in each round every one of them
trains for a few seconds on steps of its own epoch, in turn, while the others wait. The time of an epoch is then
predicted from the steps measured, as in :mod:`experiments.lib.measure`.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import Progress

from experiments.lib.measure import predict_seconds
from experiments.lib.tables import Table, spread
from experiments.lib.worker import Worker, start
from experiments.peers.contenders import CONTENDERS, EPOCHS, SMALL_PAGES, TOLERANCE, Config, Contender, environment_of


def compare(config: Config, progress: Progress) -> dict[str, Any]:
    """Measure every contender whose library is installed.

    Raises:
        RuntimeError: the two models are not the same.
    """
    wanted = dict.fromkeys(contender.library for contender in config.contenders)
    libraries = [name for name in wanted if find_spec(name.split(".")[0])]
    task = progress.add_task("training", total=len(libraries) + config.rounds * len(config.contenders))
    gave_up = []
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        given: dict[str, Any] = {}
        for library in libraries:
            options: dict[str, Any] = {"environment": environment_of(library)}
            if library in ("torch.compile", "torch.flex"):
                options["patience"] = config.patience
            try:
                worker = stack.enter_context(start(library, _prepare, library, config, given, **options))
                _check_platform(worker, workers.get("jax", worker))
                workers[library] = worker
            except (TimeoutError, RuntimeError) as error:
                if library == "jax":
                    raise
                gave_up.append({"library": library, "why": str(error)})
            else:
                given = given or workers[library].first.pop("parameters")
            progress.advance(task)
        parity = _parity(workers)
        chosen = [contender for contender in config.contenders if contender.library in workers]
        facts = {library: iter(worker.first["contenders"]) for library, worker in workers.items()}
        rows = [{**contender._asdict(), **next(facts[contender.library]), "turns": []} for contender in chosen]
        index = _numbers(chosen)
        for _ in range(config.rounds):
            for contender, number, row in zip(chosen, index, rows, strict=True):
                if contender.library in workers:
                    try:
                        row["turns"].append(workers[contender.library].ask("turn", number, config.turn_seconds))
                    except RuntimeError as error:  # the other contenders go on
                        if contender.library == "jax":
                            raise
                        del workers[contender.library]
                        gave_up.append({"library": contender.library, "why": str(error)})
                progress.advance(task)
    first = workers["jax"].first
    return {
        "config": asdict(config),
        "corpus": "MELD" if config.corpus.source == "meld" else "synthetic",
        "samples": first["samples"],
        "parameters": first["parameter_count"],
        "parity": parity,
        "gave_up": gave_up,
        "not_installed": [] if find_spec("torch") else ["torch"],
        "versions": {library: worker.first["version"] for library, worker in workers.items()},
        "pages": {"transparent_hugepage": _huge_pages_setting(), "c_library": " ".join(platform.libc_ver())},
        "rows": [_summarise(row, first["samples"]) for row in rows if row["library"] in workers],
    }


def _check_platform(worker: Worker, ours: Worker) -> None:
    """Raise a RuntimeError where a library runs on another kind of device than JAX does."""
    theirs, wanted = worker.first["platform"], ours.first["platform"]
    if theirs != wanted:
        raise RuntimeError(f"{worker.name}: runs on {theirs} here, and JAX on {wanted}")


def _huge_pages_setting() -> str | None:
    """Return when Linux gives large pages: ``always``, ``madvise`` or ``never``; None where it is unknown."""
    try:
        return re.findall(r"\[(\w+)\]", Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text())[0]
    except (OSError, IndexError):
        return None


def _prepare(library: str, config: Config, given: dict[str, Any]) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Prepare a library in its process, which imports no other."""
    return import_module(f"experiments.peers.{library.split('.')[0]}_side").prepare(library, config, given)


def _numbers(chosen: list[Contender]) -> list[int]:
    """Return the number of each contender among those of its library."""
    return [sum(other.library == c.library for other in chosen[:i]) for i, c in enumerate(chosen)]


def _parity(workers: dict[str, Worker]) -> dict[str, float] | None:
    """Measure how far apart the outputs of the two models are on the same samples, in every layout compared."""
    if "torch" not in workers:
        return None
    counts = {library: worker.first["parameter_count"] for library, worker in workers.items()}
    ours, theirs = (workers[library].ask("forward") for library in ("jax", "torch"))
    apart = float(np.abs(ours[:, None] - theirs[None]).max())
    if len(set(counts.values())) > 1 or not apart <= TOLERANCE:
        raise RuntimeError(
            f"the models differ: {counts} parameters, outputs {apart:.1e} apart; there is nothing to compare"
        )
    return {"outputs_apart": apart, "tolerance": TOLERANCE, "parameters": counts["jax"]}


def _summarise(row: dict[str, Any], samples: int) -> dict[str, Any]:
    """Compute seconds of an epoch, samples per second in each round, and seconds of some epochs with preparation."""
    work = np.array(row.pop("work"))
    places = np.array([place for turn in row["turns"] for place, _ in turn])
    seconds = np.array([took for turn in row["turns"] for _, took in turn])
    expected = predict_seconds(work[places], seconds, work)
    per_turn = [
        float(sum(took for _, took in turn) / sum(expected[place] for place, _ in turn)) for turn in row["turns"]
    ]
    epoch = float(expected.sum() * np.median(per_turn))
    return {
        **row,
        "epoch_seconds": epoch,
        "samples_per_second": [samples / (float(expected.sum()) * factor) for factor in per_turn],
        "seconds": {
            str(epochs): row["preparing_seconds"] + row["compile_seconds"][str(epochs)] + epochs * epoch
            for epochs in EPOCHS
        },
    }


def _row(results: dict[str, Any], contender: Contender) -> dict[str, Any] | None:
    """Return the row of a contender, or None where it was not measured."""
    wanted = contender.name, contender.library, contender.batches.split("/")[1]
    for row in results["rows"]:
        if (row["name"], row["library"], row["batches"].split("/")[1]) == wanted:
            return row
    return None


def table(results: dict[str, Any]) -> Table:
    """Make a row per contender: samples per second, and seconds for 1, 3 and 10 epochs."""
    heading = ["", "batches", "real cost", "shapes", "samples/s"]
    with_memory = any("device_bytes" in row for row in results["rows"])
    rows = []
    for row in results["rows"]:
        cells = [row["name"], row["batches"].split("/")[1], f"{row['cost_efficiency']:.2f}"]
        cells.append("any" if row["library"].startswith("torch") else f"{row['shapes']['1']:,}")
        cells.append(spread(row["samples_per_second"], ",.0f"))
        if with_memory:
            compiling, held = row["compile_seconds"]["1"], row["device_bytes"]
            cells += [f"{compiling:,.0f} s" if compiling else "none", f"{held / 1e6:,.0f} MB" if held else ""]
        rows.append([*cells, *(seconds_text(row, str(epochs)) for epochs in EPOCHS)])
    heading += ["compiling", "memory of a step"] if with_memory else []
    heading += [f"{e} epoch{'s' * (e > 1)}" for e in EPOCHS]
    return Table(
        "Training: samples per second, and seconds predicted for some epochs",
        heading,
        rows,
        _note(results)
        + (" Memory is that of the largest step on the device, by XLA's analysis." if with_memory else ""),
        text_columns=2,
    )


def seconds_text(row: dict[str, Any], epochs: str) -> str:
    """Format the seconds for so many epochs, with a mark where shapes were predicted instead of compiled."""
    partial = row["shapes_compiled"] is not None and row["shapes_compiled"] < row["shapes"][epochs]
    return f"{'~' if partial else ''}{row['seconds'][epochs]:,.0f} s"


def _tunable(library: str) -> str:
    return f"GLIBC_TUNABLES={environment_of(library)['GLIBC_TUNABLES']}"


def _note(results: dict[str, Any]) -> str:
    corpus, versions = results["config"]["corpus"], results["versions"]
    parity = results["parity"]
    same = "" if parity is None else f"outputs of the two models {parity['outputs_apart']:.0e} apart; "
    missing = "".join(f" Left out: {left['why']}." for left in results["gave_up"])
    missing += f" Not installed: {', '.join(results['not_installed'])}." if results["not_installed"] else ""
    return (
        f"{results['samples']:,} samples ({results['corpus']}), batches of {corpus['batch_size']}, "
        f"{results['parameters']:,} parameters, {same}jax {versions['jax']}"
        + (f", torch {versions['torch']}" if "torch" in versions else "")
        + ". Samples per second are those of an epoch once compiled, predicted from the steps measured: median and "
        f"middle half of {results['config']['rounds']} turns of {results['config']['turn_seconds']:g} s. Seconds "
        "include planning and compiling; `~`: some shapes were not compiled, and count as many seconds as the others. "
        f"Both libraries run with `{_tunable('torch')}`, and with `{_tunable(SMALL_PAGES)}` for small pages "
        f"(transparent_hugepage: {results['pages']['transparent_hugepage']}; {results['pages']['c_library']})."
        + missing
    )


def ratios(results: dict[str, Any]) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Divide samples per second of packed batches, and of 8 planned shapes, by those of others, round by round."""
    small = "planned_8_small", "torch_length_small"
    pairs = [
        *((one, other) for one in _PACKED for other in ("planned_8", "fixed", *_UNPLANNED, *_UNPADDED)),
        *(("planned_8", other) for other in ("fixed", "exact", *_UNPLANNED, small[0])),
        small,
    ]
    found: dict[str, list[tuple[str, np.ndarray]]] = {}
    for one, other in pairs:
        ours, theirs = (_row(results, CONTENDERS[name]) for name in (one, other))
        if ours is not None and theirs is not None:
            both = " (of both)" if one == small[0] else ""
            name = f"{theirs['name']}{both}, {theirs['batches'].split('/')[1]} batches"
            rates = np.array(ours["samples_per_second"]) / np.array(theirs["samples_per_second"])
            found.setdefault(_PACKED.get(one, "8 planned shapes"), []).append((name, rates))
    return found


_PACKED = {name: CONTENDERS[name].name for name in ("packed", "packed_cores")}
_UNPLANNED = ("torch_random", "torch_length")
_UNPADDED = ("torch_nested", "torch_sample", "torch_flex")


def costs(results: dict[str, Any]) -> list[str]:
    """Compare compile seconds and memory of packed batches with 8 planned shapes and fixed padding, in sentences."""
    packed, planned, fixed = (_row(results, CONTENDERS[name]) for name in ("packed", "planned_8", "fixed"))
    told = []
    if packed is not None and planned is not None:
        ours, theirs = (row["compile_seconds"]["1"] for row in (packed, planned))
        told.append(
            f"Compiling all train steps: packed {ours:,.1f} s, 8 planned shapes {theirs:,.1f} s, {theirs / ours:.1f} "
            "times as much."
        )
    if packed is not None and fixed is not None and packed["device_bytes"] and fixed["device_bytes"]:
        ours, theirs = (row["device_bytes"] / 1e6 for row in (packed, fixed))
        told.append(
            f"Device memory of the step: packed {ours:,.0f} MB, fixed padding {theirs:,.0f} MB, {theirs / ours:.1f} "
            "times as much."
        )
    return told
