import json
from types import SimpleNamespace

import numpy as np
import pytest
from rich.progress import Progress

from experiments.claims import __main__ as seed_claims
from experiments.claims import exactness, gradients, measured_steps
from experiments.claims.claim import KINDS, Claim, Setting, judge
from experiments.claims.measured_steps import MeasuredSteps
from experiments.claims.quality import model_quality
from experiments.lib import corpora


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("claims")
    quality = folder / "quality.json"
    quality.write_text(json.dumps(quality_results({"fixed": [0.5, 0.52], "exact": [0.51, 0.51]})), encoding="utf-8")
    assert seed_claims.main(["--quick", "--quality", str(quality), "--out", str(folder / "run")]) == 0
    assert (folder / "run" / "claims.png").stat().st_size > 10_000
    return json.loads((folder / "run" / "results.json").read_text(encoding="utf-8"))


def quality_results(scores):
    rows = [
        {
            "padding": padding,
            "test": {"weighted_f1": score},
            "history": [{"train_loss": 1.0, "evaluation": {"loss": 1.5 - score}}],
        }
        for padding, values in scores.items()
        for score in values
    ]
    seeds = list(range(len(next(iter(scores.values())))))
    return {"rows": rows, "config": {"seeds": seeds}, "command": "c", "commit": "d", "started": "e"}


def figures(results, section):
    (claim,) = (claim for claim in results["claims"] if claim["section"] == section)
    return {name: np.array(values) for name, values in claim["figures"].items()}


@pytest.mark.experiment
def test_every_claim_has_a_verdict_and_a_reason(results):
    sections = ["3.1", "3.2.1", "3.2.2", "3.3", "4.1", "4.2", "5.1", "5.1, gradients", "5.2", "6.4"]
    assert [claim["section"] for claim in results["claims"]] == sections
    for claim in results["claims"]:
        expected = {"exact"} if claim["section"] == "5.2" else set(KINDS)  # what the quality file above has
        assert claim["verdicts"].keys() == expected
        assert set(claim["verdicts"].values()) <= {"holds", "holds in part", "does not hold here"}
        assert claim["reason"]
        assert claim["figures"].keys() == claim["forms"].keys()
        assert all(values for values in claim["figures"].values())


@pytest.mark.experiment
def test_padding_changes_nothing_in_a_masked_model(results):
    masking = figures(results, "4.1")
    assert not masking["changed by NaN in the padding"].any()
    assert masking["outputs changed by padded lengths"].max() <= exactness.OUTPUTS_APART
    assert masking["outputs changed by packing"].max() <= exactness.OUTPUTS_APART
    assert masking["weight on padding, M of ones and zeros"].min() > 0.05
    assert not masking["weight on padding, M of minus infinity"].any()
    stability = figures(results, "5.1, gradients")
    assert stability["gradients apart, masked"].max() <= gradients.SAME
    assert stability["gradients apart, unmasked"].min() > 0.01


@pytest.mark.experiment
def test_positions_move_with_padding_on_the_left_alone(results):
    moved = figures(results, "4.2")
    assert not moved["changed, padding on the right"].any()
    assert moved["changed, padding on the left"].max() > 0.1


@pytest.mark.experiment
def test_what_follows_from_lengths(results):
    lengths = figures(results, "6.4")
    assert not lengths["constant: saved, exact"].any()
    assert (lengths["constant: shapes, exact"] == 1).all()
    assert lengths["meld: saved, exact"].min() > 0.3
    assert (lengths["meld: saved, packed"] > lengths["meld: saved, exact"]).all()
    assert (lengths["meld: saved, planned"] > lengths["meld: saved, exact"]).all()
    assert lengths["meld: real cost, packed"].min() > 0.8
    whole = figures(results, "3.3")
    kept = [values for name, values in whole.items() if name.startswith("samples whole")]
    assert kept
    np.testing.assert_array_equal(kept, 1)
    assert "samples whole, packed" in whole
    assert whole["samples cut by the longest sample"] == 0
    assert whole["samples cut by the 95th percentile"] > 0


@pytest.mark.experiment
def test_savings_are_those_of_the_batches(results):
    batches = results["batches"]
    assert batches
    for kind in KINDS:
        saved = figures(results, "3.1")[f"saved of a batch's bytes, {kind}"]
        expected = [1 - batch[f"batch_bytes_{kind}"] / batch["batch_bytes_fixed"] for batch in batches]
        np.testing.assert_allclose(saved, expected)
    assert all(batch["device_bytes_exact"] < batch["device_bytes_fixed"] for batch in batches)


@pytest.mark.experiment
def test_the_tables_show_every_figure(results):
    text = seed_claims.markdown(results)
    assert text.count("\n| 3.1 |") == 2 + len(figures(results, "3.1"))
    assert "\n| 3.1 | 60 to 80 % less memory" in seed_claims.verdicts(results)
    assert "**holds" in text


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ({"fixed": [0.50, 0.51, 0.52], "exact": [0.60, 0.61, 0.63]}, "holds"),
        ({"fixed": [0.50, 0.51, 0.52], "exact": [0.50, 0.51, 0.52]}, "does not hold here"),
        ({"fixed": [0.60, 0.61, 0.63], "exact": [0.50, 0.51, 0.52]}, "does not hold here"),
    ],
)
def test_quality_is_judged_by_a_paired_test(scores, verdict):
    assert model_quality(quality_results(scores)).verdicts == {"exact": verdict}


def test_each_kind_of_batch_is_judged_by_itself():
    scores = {"fixed": [0.50, 0.51, 0.52], "packed": [0.60, 0.61, 0.63], "planned": [0.5, 0.52, 0.51]}
    verdicts = model_quality(quality_results(scores)).verdicts
    assert verdicts == {"planned": "does not hold here", "packed": "holds"}


def test_a_verdict_follows_from_the_rule():
    claim = Claim("1", "says", "method", "rule")
    assert claim.conclude(judge(True, True), "why").verdicts == dict.fromkeys(KINDS, "holds")
    assert claim.conclude({"exact": judge(False, True)}, "why").verdicts == {"exact": "holds in part"}
    assert judge(False, False) == "does not hold here"


@pytest.mark.parametrize("content", [None, "{", '{"rows": [{"padding": "fixed"}]}'])
def test_a_wrong_quality_file(tmp_path, capsys, content):
    file = tmp_path / "quality.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    assert seed_claims.main(["--quality", str(file), "--out", str(tmp_path / "run")]) == 2
    assert f"error: --quality {file}" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_planned_steps_are_weighted_by_how_often_their_shape_comes(monkeypatch):
    corpus = corpora.on_corpus(None, modalities=("audio",), samples=64, batch_size=8, d_model=8, num_heads=2)
    samples, lengths, config, _ = corpora.load(corpus, Progress(disable=True))
    setting = Setting(samples, lengths, config, corpus, repeats=3, batches=1, seeds=1)
    monkeypatch.setattr(measured_steps, "StepTable", lambda _: SimpleNamespace(compile=lambda *_: None))
    monkeypatch.setattr(measured_steps, "_seconds", lambda _table, _state, batch: batch.shape.positions)
    steps = MeasuredSteps(setting, lambda: None)
    schedule = steps.batchers["planned"].schedule(0)
    assert len(np.unique(schedule.lengths)) > 2
    expected = (schedule.lengths.sum(axis=1) * schedule.batch_sizes).mean()
    assert steps.planned_step_seconds() == pytest.approx(expected)


@pytest.mark.parametrize(("peak", "verdict"), [(200, "holds in part"), (60, "holds")])
def test_speed_and_memory_hold_only_with_the_peak(peak, verdict, monkeypatch):
    corpus = corpora.on_corpus(None, modalities=("audio",), samples=64, batch_size=8, d_model=8, num_heads=2)
    samples, lengths, config, _ = corpora.load(corpus, Progress(disable=True))
    steps = MeasuredSteps(Setting(samples, lengths, config, corpus, repeats=1, batches=1, seeds=1), lambda: None)
    monkeypatch.setattr(steps, "planned_step_seconds", lambda: 1.0)
    steps.peaks = {"fixed": 200, **dict.fromkeys(KINDS, peak)}
    cost = {"fixed": 10.0, **dict.fromkeys(KINDS, 1.0)}
    steps.rows = [
        {"compile_seconds": dict.fromkeys(cost, 0.0)}
        | {f"{figure}_{kind}": value for kind, value in cost.items() for figure in ("device_bytes", "train")}
    ]
    assert steps.performance(1).verdicts == dict.fromkeys(KINDS, verdict)


def test_the_peak_is_measured_where_the_device_has_statistics(monkeypatch):
    peaks = iter([1, 40, 1, 50, 1, 190, 1, 200])
    monkeypatch.setattr(measured_steps, "peak_bytes_in_use", lambda: next(peaks))
    corpus = corpora.on_corpus(None, modalities=("audio",), samples=24, batch_size=8, d_model=8, num_heads=2)
    samples, lengths, config, _ = corpora.load(corpus, Progress(disable=True))
    setting = Setting(samples, lengths, config, corpus, repeats=1, batches=3, seeds=1)
    monkeypatch.setattr(measured_steps, "StepTable", lambda _: lambda leaves, _: leaves)
    steps = MeasuredSteps(setting, lambda: None)
    assert steps.peaks == {"packed": 40, "exact": 50, "planned": 190, "fixed": 200}
