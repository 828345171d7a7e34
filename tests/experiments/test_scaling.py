import json

import numpy as np
import pytest

from experiments.scaling.__main__ import main, markdown, tables
from experiments.scaling.fit import fit_series, power_law
from experiments.scaling.report import AXES
from experiments.scaling.rounds import QUICK, Config, in_turn
from tests.helpers.caches import restored_cache_options

AXIS_FIELDS = {
    "length": "lengths",
    "batch_size": "batch_sizes",
    "modalities": "modalities",
    "shapes": "shapes",
    "samples": "samples",
}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    out = tmp_path_factory.mktemp("scaling") / "run"
    with restored_cache_options():
        assert main(["--quick", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def results(quick):
    def no_constant(name):
        raise AssertionError(f"{name} in results.json")

    return json.loads((quick / "results.json").read_text(encoding="utf-8"), parse_constant=no_constant)


@pytest.mark.experiment
def test_every_axis_has_its_points(results):
    assert [axis.key for axis in AXES] == list(AXIS_FIELDS)
    for axis, name in AXIS_FIELDS.items():
        assert [point["size"] for point in results["points"][axis]] == list(QUICK[name])
    for axis in ("length", "batch_size", "modalities"):
        for point in results["points"][axis]:
            assert len(point["step_seconds"]) == QUICK["step_rounds"]
            assert len(point["compile_seconds"]) == QUICK["rounds"]
            assert min(*point["step_seconds"], *point["compile_seconds"], point["device_bytes"], point["flops"]) > 0
            assert len(point["packed_step_seconds"]) == QUICK["step_rounds"]
            assert (
                min(*point["packed_step_seconds"], *point["packed_compile_seconds"], point["packed_device_bytes"]) > 0
            )
    for point in results["points"]["samples"]:
        assert point["packed_real_cost"] > 0.8
        assert min(*point["packing_seconds"], *point["packed_schedule_seconds"]) > 0


@pytest.mark.experiment
def test_as_many_programs_are_compiled_as_there_are_shapes(results):
    for point in results["points"]["shapes"]:
        assert point["compiles"] == point["shapes"] == point["size"] >= point["used"]
        assert 0 < point["efficiency"] <= point["bound"] <= 1
        assert point["device_bytes_mean"] <= point["device_bytes_largest"]
    for point in results["points"]["samples"]:
        assert point["compiles"] == point["used"] <= point["shapes"] == QUICK["planned_shapes"]


@pytest.mark.experiment
def test_exponents_of_what_is_counted(results):
    exponents = results["exponents"]
    for axis, key, expected in (
        ("samples", "table_bytes", 1.0),
        ("samples", "compiles", 0.0),
        ("shapes", "compiles", 1.0),
        ("batch_size", "flops", 1.0),
    ):
        fit = exponents[axis][key]
        assert fit["exponent"] == pytest.approx(expected, abs=0.05)
        assert fit["last"] == pytest.approx(expected, abs=0.05)
        assert fit["spread"] is None
        assert fit["last_spread"] is None
    assert 1 < exponents["length"]["flops"]["exponent"] < 2
    low, high = exponents["length"]["step_seconds"]["spread"]
    assert low <= high


@pytest.mark.experiment
def test_markdown_has_every_table_and_the_sentences(results):
    text = markdown(results)
    listed = tables(results)
    assert len(listed) == len(AXES) + 1
    for table in listed:
        assert f"### {table.title}\n\n{table.markdown()}" in text
    assert "length table ~ N^1.00 over all, N^1.00 between 500 and 1,000" in text
    assert "compilations ~ K^1.00 over all, K^1.00 between 1 and 2" in text


@pytest.mark.experiment
def test_a_run_that_is_older_than_a_series_has_a_table_without_it(results):
    points = [
        {key: value for key, value in point.items() if "pack" not in key} for point in results["points"]["samples"]
    ]
    text = markdown({**results, "points": {**results["points"], "samples": points}})
    assert "packed schedule" not in text
    assert "packed schedule" in markdown(results)


@pytest.mark.experiment
def test_there_is_a_picture(quick):
    assert (quick / "scaling.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.experiment
def test_a_folder_that_is_there_is_left_alone(quick, capsys):
    assert main(["--data-dir", "nowhere", "--quick", "--out", str(quick)]) == 2
    assert "exists" in capsys.readouterr().err


def test_a_corpus_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["--data-dir", "nowhere", "--quick", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.startswith("error: nowhere")
    assert not (tmp_path / "run").exists()


def test_an_exact_power_law_is_found():
    sizes = [256, 32, 64, 128]
    values = [0.5 * size**1.7 for size in sizes]
    assert power_law(sizes, values) == pytest.approx((1.7, 0.5))
    fit = fit_series(sizes, [[value] * 3 for value in values])
    assert fit is not None
    assert [fit["exponent"], fit["last"], *fit["spread"], *fit["last_spread"]] == pytest.approx([1.7] * 6)
    assert fit["between"] == [128, 256]
    assert fit["off"] == pytest.approx(0, abs=1e-9)


def test_constant_overhead_shows_between_the_largest():
    sizes = [1, 10, 100, 1000]
    fit = fit_series(sizes, [[100.0 + size**2] for size in sizes])
    assert fit is not None
    assert fit["exponent"] < 1.5 < fit["last"] < 2
    assert fit["off"] > 0.5
    assert fit["spread"] is None


def test_the_spread_follows_the_repeats():
    rng = np.random.default_rng(0)
    sizes = [1, 2, 4, 8]

    def width(noise):
        fit = fit_series(sizes, [(size * rng.lognormal(0, noise, 9)).tolist() for size in sizes])
        assert fit is not None
        low, high = fit["spread"]
        assert low <= fit["exponent"] <= high
        return high - low

    assert 0 < width(0.01) < width(0.5)


@pytest.mark.parametrize(
    ("sizes", "repeats"), [([4], [[1.0]]), ([4, 4], [[1.0], [2.0]]), ([1, 2], [[0.0], [1.0]])], ids=str
)
def test_what_has_no_power_law_is_not_fitted(sizes, repeats):
    assert fit_series(sizes, repeats) is None


def test_a_measure_ends_early_but_not_before_its_least_rounds():
    config, counted = Config(seconds=1.0, least_rounds=2), []
    seconds = in_turn([lambda: 5.0, lambda: 0.3, lambda: 0.0], 6, config, counted.append)
    assert [len(times) for times in seconds] == [2, 4, 6]
    assert sum(counted) == 18, "a bar whose total is known ends full"
