import re
from contextlib import ExitStack

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import BucketBatcher, Exact, Fixed, Ladder, LengthTable, Planned, plan_shapes
from multimodal_pad.compiling import CompileLog, StepTable, forbid_compiles, warm_up, warm_up_all
from multimodal_pad.errors import CompileError, TrainingError
from multimodal_pad.training import (
    TrainStep,
    classification_metrics,
    cross_entropy,
    evaluate,
    fit,
    l1,
    make_optimizer,
)
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.caches import restored_cache_options
from tests.helpers.training import MeanModel, make_batcher, make_samples


def test_fit_learns_and_counts_samples_once():
    result = fit(
        MeanModel(), make_batcher(), epochs=6, optimizer=make_optimizer(0.1), evaluate_on=make_batcher(), progress=False
    )
    losses = [record.train_loss for record in result.history]
    assert losses[-1] < 0.2 < losses[0]
    assert result.history[-1].evaluation["accuracy"] == 1.0
    assert result.history[-1].evaluation["weighted_f1"] == 1.0
    assert result.best_epoch == int(np.argmin([r.evaluation["loss"] for r in result.history]))


def test_the_callers_model_is_left_as_it_was():
    model = MeanModel()
    before = np.array(model.head.kernel[...])
    result = fit(model, make_batcher(), epochs=1, optimizer=make_optimizer(0.1), progress=False)
    np.testing.assert_array_equal(model.head.kernel[...], before)
    assert (np.asarray(result.model.head.kernel[...]) != before).any()


def test_early_stopping_returns_the_best_epoch():
    """Evaluated on flipped labels, every epoch of training is worse than the one before."""
    flipped = [{**sample, "targets": np.int32(1 - sample["targets"])} for sample in make_samples()]
    result = fit(
        MeanModel(),
        make_batcher(),
        epochs=20,
        optimizer=make_optimizer(0.1),
        evaluate_on=make_batcher(flipped),
        patience=2,
        progress=False,
    )
    assert len(result.history) == 3
    assert result.best_epoch == 0
    losses = [record.evaluation["loss"] for record in result.history]
    assert losses == sorted(losses)
    step = TrainStep(result.model, optax.sgd(0.1), cross_entropy)
    best = evaluate(StepTable(step.eval_step), step.state, make_batcher(flipped))
    assert best["loss"] == pytest.approx(losses[0], abs=1e-6)


@pytest.mark.slow
def test_the_figure_that_is_monitored_decides():
    """Metrics that grow with each evaluation, and ones that fall: the last epoch is best, or the first."""
    for sign, best in ((1, 3), (-1, 0)):
        figures = iter(range(9))
        result = fit(
            MeanModel(),
            make_batcher(),
            epochs=4,
            evaluate_on=make_batcher(),
            metrics=lambda outputs, targets, sign=sign, figures=figures: {
                "figure": sign * next(figures) + 0 * len(outputs) * len(targets),
                "mae": 1.0,
            },
            monitor="figure",
            progress=False,
        )
        assert result.best_epoch == best
        assert set(result.history[0].evaluation) == {"loss", "figure", "mae"}


def test_a_figure_that_is_nan_is_never_the_best():
    figures = iter([float("nan"), 0.1, float("nan"), 0.3, 0.2])
    result = fit(
        MeanModel(),
        make_batcher(),
        epochs=5,
        evaluate_on=make_batcher(),
        metrics=lambda _outputs, _targets: {"corr": next(figures)},
        monitor="corr",
        progress=False,
    )
    assert result.best_epoch == 3


@pytest.mark.slow
def test_figures_that_are_nan_go_through_checkpoints(tmp_path):
    """A correlation is NaN where all outputs are equal: as a figure that is monitored, and as one that is not."""
    samples = [{**s, "targets": np.float32(s["targets"])} for s in make_samples()]

    def run(epochs, figures):
        with Checkpoints(tmp_path / "run") as checkpoints:
            return fit(
                MeanModel(1),
                make_batcher(samples),
                epochs=epochs,
                loss=l1,
                evaluate_on=make_batcher(samples),
                metrics=lambda _outputs, _targets: {"corr": next(figures), "other": np.float32("nan")},
                monitor="corr",
                checkpoints=checkpoints,
                progress=False,
            )

    first = run(3, iter([np.float64("nan"), 0.5, np.float32("nan")]))
    assert first.best_epoch == 1
    second = run(4, iter([0.25]))
    assert second.best_epoch == 1
    assert [str(record.evaluation["corr"]) for record in second.history] == ["nan", "0.5", "nan", "0.25"]
    assert np.isnan(second.history[0].evaluation["other"])


def test_metrics_of_ones_own_need_no_scikit_learn(monkeypatch):
    monkeypatch.setattr("multimodal_pad.training.metrics.find_spec", lambda _: None)
    options = {"epochs": 1, "evaluate_on": make_batcher(), "progress": False}
    fit(MeanModel(), make_batcher(), metrics=lambda _outputs, _targets: {"one": 1.0}, **options)
    with pytest.raises(TrainingError, match="accuracy and F1 need scikit-learn"):
        fit(MeanModel(), make_batcher(), metrics=classification_metrics, **options)


@pytest.mark.parametrize("metrics", ["classification", [classification_metrics]])
def test_metrics_that_are_no_function_are_refused_before_anything_runs(metrics):
    message = r"got metrics=.*; give a function of outputs and targets that returns \{name: figure\}"
    with pytest.raises(TrainingError, match=message):
        fit(MeanModel(), make_batcher(), epochs=1, metrics=metrics, progress=False)
    step = TrainStep(MeanModel(), optax.sgd(0.1), cross_entropy)
    with pytest.raises(TrainingError, match=message):
        evaluate(StepTable(step.eval_step), step.state, make_batcher(), metrics=metrics)


def test_a_figure_that_there_is_not():
    with pytest.raises(
        TrainingError, match=r"got monitor='f1'; the evaluation has \['loss', 'accuracy', 'weighted_f1'\]"
    ):
        fit(MeanModel(), make_batcher(), epochs=1, evaluate_on=make_batcher(), monitor="f1", progress=False)
    with pytest.raises(TrainingError, match="got monitor='f1', a figure of the evaluation, without evaluate_on"):
        fit(MeanModel(), make_batcher(), epochs=1, monitor="f1", progress=False)


def test_evaluation_ignores_the_rows_that_fill_up():
    step = TrainStep(MeanModel(), optax.sgd(0.1), cross_entropy)
    samples = make_samples(7)
    whole = BucketBatcher(samples, Fixed({"audio": 12}), batch_size=7)
    filled = BucketBatcher(samples, Fixed({"audio": 12}), batch_size=5)
    one, other = (evaluate(StepTable(step.eval_step), step.state, b) for b in (whole, filled))
    assert one == pytest.approx(other, abs=1e-6)


def test_regression_is_scored_by_its_error():
    samples = [{**s, "targets": np.float32(s["targets"])} for s in make_samples()]
    result = fit(
        MeanModel(1),
        make_batcher(samples),
        epochs=8,
        loss=l1,
        optimizer=make_optimizer(0.05),
        evaluate_on=make_batcher(samples),
        progress=False,
    )
    assert set(result.history[0].evaluation) == {"loss", "mae"}
    last = result.history[-1].evaluation
    assert last["mae"] == pytest.approx(last["loss"], abs=1e-5)
    assert last["mae"] < result.history[0].evaluation["mae"]


def test_a_step_equals_optax_on_the_tree_of_parameters():
    """Clipping, AdamW and warm-up."""
    optimizer = make_optimizer(0.1, warmup_steps=2, clip=0.5)
    step = TrainStep(MeanModel(), optimizer, cross_entropy)
    batch = next(make_batcher().epoch(0))
    graphdef, parameters = nnx.split(MeanModel())
    moments, state, train_step = optimizer.init(parameters), step.state, jax.jit(step.train_step)

    def loss(parameters):
        outputs = nnx.merge(graphdef, parameters)(batch)
        return cross_entropy(outputs, batch.targets, batch.sample_mask)

    @jax.jit
    def by_optax(parameters, moments):
        value, gradient = jax.value_and_grad(loss)(parameters)
        updates, moments = optimizer.update(gradient, moments, parameters)
        return optax.apply_updates(parameters, updates), moments, value, optax.tree.norm(gradient)

    for _ in range(3):
        parameters, moments, value, norm = by_optax(parameters, moments)
        state, metrics = train_step(state, batch)
        assert float(metrics.loss) == pytest.approx(float(value), abs=1e-6)
        assert float(metrics.grad_norm) == pytest.approx(float(norm), rel=1e-5)
        assert int(metrics.samples) == batch.sample_mask.sum()
    for one, other in zip(jax.tree.leaves(nnx.state(step.model(state))), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def planned_batcher(samples, count=3, **options):
    plan = plan_shapes(LengthTable.measure(samples, ["audio"]), max_shapes=count, batch_size=6)
    return BucketBatcher(samples, Planned(plan), **options)


@pytest.fixture
def after_warm_up(monkeypatch):
    """A log of what compiles between the end of fit's warm-up and the end of the test."""
    with ExitStack() as stack:
        log = CompileLog()

        def recording(*arguments, **options):
            warm_up_all(*arguments, **options)
            stack.enter_context(log)

        monkeypatch.setattr("multimodal_pad.training.preparing.warm_up_all", recording)
        yield log


@pytest.mark.parametrize("make", [make_batcher, planned_batcher])
def test_nothing_compiles_after_the_warm_up(make, after_warm_up):
    """Three epochs whose last batches are short, evaluation in between, the best model at the end."""
    batcher, other = make(make_samples(41)), make(make_samples(23, seed=1))
    with CompileLog() as log:
        result = fit(MeanModel(), batcher, epochs=3, evaluate_on=other, strict=True, progress=False)
    assert len(result.history) == 3
    assert log["train_step"].shapes == log["train_step"].backend_compiles == len(batcher.batch_shapes(3))
    assert log["eval_step"].shapes == log["eval_step"].backend_compiles == len(other.batch_shapes(1))
    assert after_warm_up.total.backend_compiles == after_warm_up.total.traces == 0, list(after_warm_up)
    outputs = result.model(next(other.epoch(0)))
    assert np.isfinite(outputs).all()


def test_early_stopping_compiles_nothing(after_warm_up):
    flipped = [{**sample, "targets": np.int32(1 - sample["targets"])} for sample in make_samples()]
    optimizer = make_optimizer(0.1)
    batcher, other = planned_batcher(make_samples()), planned_batcher(flipped)
    result = fit(
        MeanModel(), batcher, epochs=9, optimizer=optimizer, evaluate_on=other, patience=1, strict=True, progress=False
    )
    assert len(result.history) == 2
    assert after_warm_up.total.backend_compiles == 0


@pytest.mark.parametrize("place", ["numpy", "uncommitted", "committed"])
def test_a_restart_from_a_file_compiles_nothing(place, tmp_path):
    """Half of the steps, the state written and read again, the other half: as if it had never stopped."""
    batcher = planned_batcher(make_samples(41))
    step = TrainStep(MeanModel(), make_optimizer(0.1), cross_entropy)
    table = warm_up(
        StepTable(step.train_step, donate_state=True),
        batcher.policy.plan.spec(batcher.example()),
        step.state,
        progress=False,
    )
    put = {
        "numpy": lambda x: x,
        "uncommitted": jax.device_put,
        "committed": lambda x: jax.device_put(x, jax.devices()[0]),
    }[place]
    batches = [batch for epoch in range(3) for batch in batcher.epoch(epoch)]
    straight = jax.tree.map(np.array, step.state)
    with CompileLog() as log, forbid_compiles():
        for batch in batches:
            straight, _ = table(straight, batch)
        state = step.state
        for number, batch in enumerate(batches):
            state, _ = table(state, put(batch))
            if number == len(batches) // 2:
                leaves, structure = jax.tree.flatten(state)
                np.savez(tmp_path / "state.npz", *leaves)
                with np.load(tmp_path / "state.npz") as file:
                    state = put(jax.tree.unflatten(structure, [file[name] for name in file.files]))
    assert log.total.backend_compiles == log.total.traces == 0, list(log)
    for one, other in zip(jax.tree.leaves(straight), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_exact_padding_compiles_as_it_goes(after_warm_up):
    exact = BucketBatcher(make_samples(), Exact(["audio"]), batch_size=6)
    with CompileLog() as log:
        fit(MeanModel(), exact, epochs=1, evaluate_on=make_batcher(), progress=False)
    assert log["train_step"].backend_compiles == len(exact.stats.shapes)
    assert after_warm_up["train_step"].backend_compiles == len(exact.stats.shapes)
    assert after_warm_up["eval_step"].backend_compiles == 0
    with pytest.raises(TrainingError, match=r"got strict for Exact\(\['audio'\]\)"):
        fit(MeanModel(), exact, epochs=1, strict=True)


@pytest.mark.slow
def test_strict_training_refuses_what_the_source_compiles():
    class Jitted:
        """A source that computes its features with JAX."""

        def __init__(self):
            self.samples = make_samples()
            self.compute = jax.jit(lambda x: x * 2)

        def __len__(self):
            return len(self.samples)

        def __getitem__(self, index):
            sample = self.samples[index]
            return {**sample, "audio": np.asarray(self.compute(sample["audio"]))}

    source = Jitted()
    lengths = LengthTable.measure(source.samples, ["audio"])

    def batcher():
        return BucketBatcher(source, Ladder({"audio": [4, 8, 12]}), batch_size=6, lengths=lengths)

    with pytest.raises(CompileError, match=r"'<lambda>' would be compiled at .*test_loop.py"):
        fit(MeanModel(), batcher(), epochs=1, strict=True, progress=False)
    fit(MeanModel(), batcher(), epochs=1, progress=False)
    fit(MeanModel(), batcher(), epochs=1, strict=True, progress=False)


@pytest.mark.slow
def test_the_cache_serves_training(tmp_path):
    with restored_cache_options():
        with CompileLog() as first:
            fit(MeanModel(), make_batcher(), epochs=1, cache_dir=tmp_path / "cache", progress=False)
        jax.clear_caches()
        with CompileLog() as second:
            fit(MeanModel(), make_batcher(), epochs=1, cache_dir=tmp_path / "cache", progress=False)
    assert first["train_step"].compiled == second["train_step"].cache_hits == 3
    assert second["train_step"].compiled == 0


def test_a_loss_that_is_not_finite_is_named():
    samples = make_samples()
    samples[5]["audio"][0] = np.nan
    with pytest.raises(TrainingError, match=r"epoch 0, step \d+: the loss is nan; .*check_finite"):
        fit(MeanModel(), make_batcher(samples), epochs=1, progress=False)


def test_an_evaluation_loss_that_is_not_finite_is_named():
    samples = make_samples()
    samples[5]["audio"][0] = np.inf
    with pytest.raises(TrainingError, match=r"epoch 0, evaluation: the loss is nan"):
        fit(MeanModel(), make_batcher(), epochs=2, evaluate_on=make_batcher(samples), progress=False)


def test_whole_numbers_can_be_regressed():
    result = fit(MeanModel(1), make_batcher(), epochs=1, loss=l1, evaluate_on=make_batcher(), progress=False)
    assert set(result.history[0].evaluation) == {"loss", "mae"}


def test_scikit_learn_is_asked_for_before_the_first_epoch(monkeypatch):
    monkeypatch.setattr("multimodal_pad.training.metrics.find_spec", lambda _: None)
    batcher = make_batcher()
    with pytest.raises(TrainingError, match="need scikit-learn; install it with"):
        fit(MeanModel(), batcher, epochs=1, evaluate_on=make_batcher(), progress=False)
    assert batcher.stats.steps == 0


def test_evaluation_without_targets():
    batcher = make_batcher([{"audio": s["audio"]} for s in make_samples()])
    step = TrainStep(MeanModel(), optax.sgd(0.1), cross_entropy)
    with pytest.raises(TrainingError, match="no targets"):
        evaluate(StepTable(step.eval_step), step.state, batcher)


@pytest.mark.parametrize(("options", "message"), [({"epochs": 0}, "epochs=0"), ({"patience": 2}, "patience=2")])
def test_bad_fit_options(options, message):
    with pytest.raises(TrainingError, match=message):
        fit(MeanModel(), make_batcher(), **{"epochs": 1, **options}, progress=False)


@pytest.mark.parametrize("options", [{"learning_rate": 0}, {"warmup_steps": -1}, {"clip": 0}])
def test_bad_optimizer_options(options):
    with pytest.raises(TrainingError, match=next(iter(options))):
        make_optimizer(**options)


def test_a_terminal_shows_a_bar_with_epoch_and_loss(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # so that rich takes the output for a terminal
    fit(MeanModel(), make_batcher(), epochs=1)
    assert "epoch 0  loss" in capsys.readouterr().out


def test_a_pipe_shows_a_line_per_epoch(capsys):
    fit(MeanModel(), make_batcher(), epochs=2, evaluate_on=make_batcher())
    first, second = (line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch "))
    assert re.fullmatch(r"epoch 0  train_loss \S+  eval_loss \S+  eval_accuracy \S+  .* s  best so far", first)
    assert second.startswith("epoch 1  train_loss ")
    fit(MeanModel(), make_batcher(), epochs=1, progress=False)
    assert capsys.readouterr().out == ""
