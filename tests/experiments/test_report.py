"""The comparison's report: its headline, its figures, and what a browser makes of it."""

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.compare.figures import figures
from experiments.compare.naming import label
from experiments.compare.report import headline, report_html
from experiments.compare.run_time import envelope, parts, seconds_over_epochs
from experiments.lib.charts import figure_html
from experiments.lib.colours import COLOURS, LIBRARIES, PARTS, PLANNED, POLICIES, policy_colours
from tests.helpers.browser import look

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def results():
    """Those that the README shows."""
    return json.loads((ROOT / "results/compare/meld/results.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(report_html(results), encoding="utf-8")
    return file


def test_the_headline_names_the_fastest_and_what_it_saves(results):
    best = min(results["rows"], key=lambda row: row["seconds_to_train"])
    fixed = next(row for row in results["rows"] if row["policy"] == "fixed")
    told = headline(results).replace("\N{NO-BREAK SPACE}", " ")
    assert told.startswith(f"Here, use **{label(best)}**: {results['config']['epochs']} epochs in about **")
    assert f"**{fixed['seconds_to_train'] / best['seconds_to_train']:.1f} times** as fast as fixed padding" in told


@pytest.mark.parametrize(
    ("chosen", "message"),
    [(["fixed"], "fixed, random** takes"), (["exact", "packed"], "where exact, random takes")],
)
def test_the_headline_of_few_policies(results, chosen, message):
    some = {**results, "rows": [row for row in results["rows"] if row["policy"] in chosen]}
    assert message in headline(some)


@pytest.mark.parametrize(("seconds", "told"), [(105.0, True), (115.0, False)])
def test_the_headline_names_what_is_as_fast_with_fewer_programs(results, seconds, told):
    taken = {("planned_8", "length"): 100.0, ("packed", "balanced"): seconds}
    rows = [{**row, "seconds_to_train": taken.get((row["policy"], row["grouping"]), 1000.0)} for row in results["rows"]]
    said = headline({**results, "rows": rows}).replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("Here, use **planned 8, length**")
    assert (f"**packed, balanced** takes about as long, {seconds:,.0f} s, with 1 program." in said) is told


def test_the_parts_of_a_run_are_all_of_it(results):
    for row in results["rows"]:
        assert sum(parts(row).values()) == pytest.approx(row["seconds_to_train"])
        assert seconds_over_epochs(row, results)(results["config"]["epochs"]) == pytest.approx(row["seconds_to_train"])


def test_what_compiles_as_it_goes_goes_on_compiling():
    row = {
        "compile_seconds_before": 0.0,
        "compile_seconds_during": 8.0,
        "preparing_seconds": 1.0,
        "seconds_to_train": 13.0,
        "steps": 4,
        "measured": {"wait_seconds": [0.0]},
        "shapes_so_far": [1, 2, 3, 4],
    }
    seconds = seconds_over_epochs(row, {"config": {"epochs": 4}})
    assert [seconds(count) for count in (1, 4, 8)] == pytest.approx([1 + 2 + 1, 13, 1 + 16 + 8])


def test_the_fastest_over_epochs_is_found_by_trying_all():
    rng = np.random.default_rng(0)
    lines = [(float(a), float(b)) for a, b in zip(rng.uniform(0, 100, 5), rng.uniform(0.1, 5, 5), strict=True)]
    costs = [lambda n, a=a, b=b: a + b * n for a, b in lines]
    found = dict(envelope(costs, 60))
    best = None
    for count in range(1, 61):
        fastest = min(range(5), key=lambda i: lines[i][0] + lines[i][1] * count)
        assert found.get(count) == (fastest if fastest != best else None)
        best = fastest


def test_rectangles_cover_the_positions_of_a_batch(results):
    drawn = next(figure for figure in figures(results) if figure.title.startswith("One batch"))
    for row, chart in zip(results["rows"], drawn.charts, strict=True):
        marks = chart.chart.to_dict()["data"]["values"]
        rows = 1 if row["batch"]["packed"] else results["config"]["batch_size"]
        for place, name in enumerate(results["modalities"]):
            mine = [mark for mark in marks if mark["modality"] == name]
            assert sum(mark["to"] - mark["from"] for mark in mine) == pytest.approx(
                rows * row["batch"]["padded"][place]
            )
            real = sum(mark["to"] - mark["from"] for mark in mine if mark["what"] != "padding")
            assert real == pytest.approx(np.array(row["batch"]["lengths"])[:, place].sum())


def test_a_policy_has_one_colour_that_stands_out_from_both_pages():
    policies = [
        ("fixed", "random"),
        ("exact", "random"),
        ("exact", "length"),
        ("planned_8", "length"),
        ("packed", "balanced"),
    ]
    colours = policy_colours(policies)
    assert len(set(colours.values())) == len(policies)
    for colour in {*POLICIES.values(), *PLANNED, *PARTS.values(), *LIBRARIES.values(), *COLOURS}:
        for paper in ("#ffffff", "#12161b"):
            assert _contrast(colour, paper) >= 3, (colour, paper)


def _contrast(one: str, other: str) -> float:
    """WCAG 2.1's contrast ratio."""
    light, dark = sorted(map(_luminance, (one, other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    values = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def test_a_chart_can_not_end_its_script(results):
    figure = next(iter(figures(results)))
    hostile = figure._replace(charts=[figure.charts[0]._replace(description="</script><b>")])
    assert figure_html(hostile, "x").count("</script>") == 1


@pytest.mark.slow
@pytest.mark.parametrize(("width", "dark"), [(400, True), (1280, False)])
def test_a_browser_draws_it_whole_at_any_width(results, page, width, dark):
    found = look(page, width, dark=dark)
    drawn = sum(len(figure.charts) for figure in figures(results))
    assert drawn > 10
    assert found == {"cut": [], "wider": False, "charts": drawn, "violations": [], "wrong": [], "fetched": []}
