"""What the comparison shows: the table on the terminal and in the README, and report.html.

python -m experiments.compare.report RESULTS.json     the table in Markdown
"""

from __future__ import annotations

import html
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table as TerminalTable

from experiments.compare.figures import figures
from experiments.compare.naming import label
from experiments.lib.charts import figure_html, scripts
from experiments.lib.page import cards, html_page
from experiments.lib.provenance import measured_on, where_measured
from experiments.lib.tables import Table, paragraphs, to_html

Row = dict[str, Any]

CLAIM = (
    "(The description of Algorithm 1, which is exact padding, expects 60 to 80 % less memory and 15 to 25 % faster "
    "training than fixed padding, and leaves compiling out.)"
)


def _seconds(value: float) -> str:
    return f"{value:,.1f} s" if value < 100 else f"{value:,.0f} s"


def _megabytes(value: float | None) -> str:
    return "not told" if value is None else f"{value / 1e6:,.1f} MB"


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def columns(modalities: list[str]) -> dict[str, Callable[[Row], str]]:
    """Return the figures of a policy, in the order in which people ask for them."""

    def position(name: str) -> Callable[[Row], str]:
        return lambda row: _percent(row["position_efficiency"][name])

    return {
        "batch shapes": lambda row: f"{row['shapes']:,}",
        "compilations": lambda row: _maybe(row, "backend_compiles", "{:,}".format),
        "planning": lambda row: _seconds(row["preparing_seconds"]),
        "compiling before": lambda row: _maybe(row, "compile_seconds_before", _seconds),
        "compiling during": lambda row: _maybe(row, "compile_seconds_during", _seconds),
        **{f"real {name}": position(name) for name in modalities},
        "real positions": position("total"),
        "real cost": lambda row: _percent(row["cost_efficiency"]),
        "batch memory": lambda row: _megabytes(row["batch_bytes_mean"]),
        "device memory": lambda row: _megabytes(row["device_bytes_max"]),
        "median step": lambda row: f"{row['step_ms_median']:,.0f} ms",
        "  middle half": lambda row: "{:,.0f} to {:,.0f}".format(*row["step_ms_quartiles"]),
        "samples/s": lambda row: _maybe(row, "samples_per_second", "{:,.1f}".format),
        "time to train": lambda row: _maybe(row, "seconds_to_train", _seconds),
        "first loss": lambda row: f"{row['loss_first']:.4f}",
        "steps measured": lambda row: f"{row['steps_measured']:,} of {row['steps']:,}",
        "loss after them": lambda row: f"{row['loss_last']:.4f}",
    }


def _maybe(row: Row, key: str, text: Callable[[Any], str]) -> str:
    return ("~" if key in row["estimated"] and row[key] else "") + text(row[key])


def cells(results: dict[str, Any]) -> list[list[str]]:
    """Return the table: a heading row, then a row per figure with a cell per policy."""
    shown = columns(results["modalities"]).items()
    heading = ["", *map(label, results["rows"])]
    return [heading, *([name, *map(text, results["rows"])] for name, text in shown)]


def against_fixed(results: dict[str, Any]) -> list[str]:
    """Return a sentence per policy: its memory and time against fixed padding; none without a fixed row."""
    fixed = next((row for row in results["rows"] if row["policy"] == "fixed"), None)
    if fixed is None:
        return []
    sentences = []
    for row in results["rows"]:
        if row is fixed:
            continue
        memory = "device memory not told"
        if row["device_bytes_max"] and fixed["device_bytes_max"]:
            memory = f"{row['device_bytes_max'] / fixed['device_bytes_max']:.2f} of the device memory"
        rate = row["samples_per_second"] / fixed["samples_per_second"]
        sentences.append(
            f"{label(row)}, against fixed padding: {row['batch_bytes_mean'] / fixed['batch_bytes_mean']:.2f} of the "
            f"batch memory, {memory}, {rate:.1f} times the samples per second once compiled, "
            f"{row['seconds_to_train'] / fixed['seconds_to_train']:.2f} of the time to train."
        )
        if row["policy"] == "exact":
            sentences.append(CLAIM)
    return sentences


def against_ladder(results: dict[str, Any]) -> list[str]:
    """Return a sentence per plan: its compilations, cost and time against powers of two in the same grouping."""
    ladders = {row["grouping"]: row for row in results["rows"] if row["policy"] == "powers_of_two"}
    sentences = []
    for row in results["rows"]:
        ladder = ladders.get(row["grouping"])
        if ladder is None or not row["policy"].startswith("planned"):
            continue
        sentences.append(
            f"{label(row)}, against {label(ladder)}: batch shapes {row['shapes']:,} against {ladder['shapes']:,}, "
            f"{ladder['cost_efficiency'] / row['cost_efficiency']:.2f} of the padded cost, "
            f"{ladder['samples_per_second'] / row['samples_per_second']:.2f} of the time once compiled, "
            f"{row['seconds_to_train'] / ladder['seconds_to_train']:.2f} of the time to train."
        )
    return sentences


def notes(results: dict[str, Any]) -> list[str]:
    """Return what a reader must know to read the table."""
    config = results["config"]
    texts = [
        f"{results['samples']:,} samples ({config['source']}), batch size {config['batch_size']}, "
        f"{config['epochs']} epochs, {results['parameters']:,} parameters.",
        "Real: what belongs to samples, of positions or of their cost. Batch memory: the mean batch; device memory: "
        "what the largest step holds. Compiling before: ahead of the first step; during: as a shape comes. Samples/s: "
        "once compiled.",
    ]
    for row in (row for row in results["rows"] if row["policy"] == "planned_auto"):
        texts.append(_planned_auto(row))
    if any(row["estimated"] for row in results["rows"]):
        texts.append(
            '"~": estimated from the steps that were measured (--max-minutes). Where there was no time to compile '
            "every shape, they and the median step are of the largest shape and of those that most steps use."
        )
    if results["left_out"]:
        names = ", ".join(f"{row['utterance']} ({row['reason']})" for row in results["left_out"])
        texts.append(f"Left out: {names}.")
    return texts


def _planned_auto(row: Row) -> str:
    """Return what choosing the number of shapes took, and what was chosen why."""
    if "reason" not in row:  # results of before the programs were kept
        return "Planning of planned auto compiles and times five shapes first, which compiling leaves out."
    programs = row["compiled_while_planning"]
    return (
        f"Planning of {label(row)}, compiles and times {programs} {'shape' if programs == 1 else 'shapes'} of the plan "
        f"first ({_seconds(row['preparing_seconds'])}), which compiling leaves out. It chose {row['reason']}."
    )


def comparison_table(results: dict[str, Any]) -> TerminalTable:
    """Return the table for the terminal."""
    heading, *rows = cells(results)
    table = TerminalTable(
        title="What padding costs",
        caption="\n".join([*notes(results), *against_fixed(results), *against_ladder(results)]),
    )
    table.caption_justify = "left"
    table.add_column(heading[0], no_wrap=True)
    for name in heading[1:]:
        table.add_column(name.replace(", ", "\n"), justify="right", overflow="fold")
    for name, *values in rows:
        table.add_row(name, *values)
    return table


def markdown(results: dict[str, Any]) -> str:
    """Return the table, the comparison with fixed padding, and where it comes from, for the README."""
    heading, *rows = cells(results)
    found = "\n".join(f"- {sentence}" for sentence in (*against_fixed(results), *against_ladder(results)))
    table = Table("What padding costs", heading, rows, note=" ".join(notes(results)), findings=found)
    return paragraphs(table.markdown(), measured_on(results))


HEADLINE = {
    "fixed": "fixed: all to the longest",
    "exact": "exact: each batch to its own longest",
    "powers_of_two": "bucketed: powers of two, by length",
    "planned_8": "planned: 8 shapes, by length",
    "packed": "packed: end to end, random order",
}
"""The five policies of the README's table; of those that were measured in two groupings, the one by length."""


NEAR = 1.1
"""Times as long as the fastest that say nothing yet: steps of a run differ as much."""


def headline_table(results: dict[str, Any]) -> str:
    """Five rows, with what there is to decide by."""
    chosen = {row["policy"]: row for row in sorted(results["rows"], key=lambda row: row["grouping"] == "length")}
    shown = columns(results["modalities"])
    keys = ("compilations", "real cost", "device memory", "samples/s", "time to train")
    rows = [[told, *(shown[key](chosen[name]) for key in keys)] for name, told in HEADLINE.items() if name in chosen]
    heading = ["", "programs", "real cost", "memory of a step", "samples/s", "time to train"]
    return Table("What it saves", heading, rows).markdown()


def headline(results: dict[str, Any]) -> str:
    """:func:`_headline`, with figures that stay beside their units."""
    return re.sub(r"(?<=\d) (?=(s|%|times|epochs?|programs?)\b|%)", "\N{NO-BREAK SPACE}", _headline(results))


def _headline(results: dict[str, Any]) -> str:
    """Return what to use here, and what it saves: one sentence, with ``**`` around what matters."""
    rows = results["rows"]
    best = min(rows, key=lambda row: row["seconds_to_train"])
    epochs = results["config"]["epochs"]
    told = f"{epochs} {'epoch' if epochs == 1 else 'epochs'}"
    about = "about " if best["estimated"] else ""
    fixed = next((row for row in rows if row["policy"] == "fixed"), None)
    programs = _programs(best)
    if len(rows) == 1:
        return f"**{label(best)}** takes {about}{_seconds(best['seconds_to_train'])} for {told}, with {programs}."
    if fixed is None or best is fixed:
        slowest = max(rows, key=lambda row: row["seconds_to_train"])
        return (
            f"Here, use **{label(best)}**: {told} in {about}**{_seconds(best['seconds_to_train'])}** and {programs}, "
            f"where {label(slowest)} takes {_seconds(slowest['seconds_to_train'])}."
        )
    times = fixed["seconds_to_train"] / best["seconds_to_train"]
    near = [row for row in rows if row["seconds_to_train"] <= NEAR * best["seconds_to_train"]]
    fewest = min(near, key=lambda row: row["shapes"])
    also = (
        f" **{label(fewest)}** takes about as long, {_seconds(fewest['seconds_to_train'])}, with {_programs(fewest)}."
        if fewest["shapes"] < best["shapes"]
        else ""
    )
    return (
        f"Here, use **{label(best)}**: {told} in {about}**{_seconds(best['seconds_to_train'])}** and {programs}, "
        f"**{times:.1f} times** as fast as fixed padding; its real cost is "
        f"{_percent(best['cost_efficiency'])}, that of fixed padding {_percent(fixed['cost_efficiency'])}.{also}"
    )


def _programs(row: Row) -> str:
    return f"{row['shapes']:,} {'program' if row['shapes'] == 1 else 'programs'}"


SUMMARY = ("batch shapes", "real cost", "batch memory", "samples/s", "time to train")
"""The columns of the report's first table."""


def report_html(results: dict[str, Any]) -> str:
    """Return the report: one file, with its figures inside and nothing to fetch."""
    shown = columns(results["modalities"])
    names = [label(row) for row in results["rows"]]
    summary = [[name, *(shown[key](row) for key in SUMMARY)] for name, row in zip(names, results["rows"], strict=True)]
    heading, *everything = cells(results)
    heading = ["figure", *heading[1:]]
    said = "".join(f"<li>{html.escape(text)}</li>" for text in (*against_fixed(results), *against_ladder(results)))
    drawn = "\n".join(figure_html(figure, f"figure{i}") for i, figure in enumerate(figures(results)) if figure.charts)
    table = cards(heading, everything, "All that was measured")
    config = json.dumps(results["config"], indent=2)
    body = f"""<h1>What padding costs</h1>
<p class=headline>{to_html(headline(results))}</p>
{cards(["policy", *SUMMARY], summary, notes(results)[0])}
{drawn}
<section><h2>Against fixed padding and powers of two</h2><ul>{said}</ul></section>
<section><h2>All figures</h2><p class=note>{html.escape(" ".join(notes(results)[1:]))}</p>
<details open><summary>The whole table</summary>{table}</details></section>
<section><h2>How it was measured</h2><p class=origin>{to_html(where_measured(results))}</p>
<details><summary>The configuration</summary><pre>{html.escape(config)}</pre></details></section>"""
    return html_page("What padding costs", body, scripts())


def write_report(results: dict[str, Any], folder: Path) -> None:
    """``results.json`` and ``report.html``."""
    (folder / "results.json").write_text(json.dumps(results) + "\n", encoding="utf-8")
    (folder / "report.html").write_text(report_html(results), encoding="utf-8")


if __name__ == "__main__":
    print(markdown(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
