import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import BucketBatcher, Fixed, Ladder
from multimodal_pad.compiling import CompileLog, StepTable
from multimodal_pad.errors import TrainingError
from multimodal_pad.training import TrainStep, cross_entropy, evaluate, fit, l1, make_optimizer


class MeanModel(nnx.Module):
    """The smallest model with the interface of the transformer: it compiles in no time."""

    def __init__(self, outputs=2, rngs=None):
        self.head = nnx.Linear(3, outputs, rngs=rngs or nnx.Rngs(0))

    def __call__(self, features, masks, *, dropout_key=None):  # noqa: ARG002  the interface of the transformer
        real = masks["audio"][..., None]
        mean = jnp.where(real, features["audio"], 0).sum(axis=1) / jnp.maximum(real.sum(axis=1), 1)
        return self.head(mean)


def make_samples(count=40, seed=0):
    """The sign of the mean tells the class."""
    rng = np.random.default_rng(seed)
    samples = []
    for i in range(count):
        features = rng.standard_normal((int(rng.integers(1, 12)), 3)).astype(np.float32) + (3 if i % 2 else -3)
        samples.append({"audio": features, "targets": np.int32(i % 2)})
    return samples


def make_batcher(samples=None, **options):
    samples = make_samples() if samples is None else samples
    return BucketBatcher(samples, Ladder({"audio": [4, 8, 12]}), batch_size=6, **options)


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
    best = evaluate(StepTable(step.eval_step), step.leaves, make_batcher(flipped))
    assert best["loss"] == pytest.approx(losses[0], abs=1e-6)


def test_evaluation_ignores_the_rows_that_fill_up():
    step = TrainStep(MeanModel(), optax.sgd(0.1), cross_entropy)
    samples = make_samples(7)
    whole = BucketBatcher(samples, Fixed({"audio": 12}), batch_size=7)
    filled = BucketBatcher(samples, Fixed({"audio": 12}), batch_size=5)
    one, other = (evaluate(StepTable(step.eval_step), step.leaves, b) for b in (whole, filled))
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
    """One flat vector gives what optax gives leaf by leaf: clipping, AdamW and warm-up."""
    optimizer = make_optimizer(0.1, warmup_steps=2, clip=0.5)
    step = TrainStep(MeanModel(), optimizer, cross_entropy)
    batch = next(make_batcher().epoch(0))
    graphdef, parameters = nnx.split(MeanModel())
    state, leaves = optimizer.init(parameters), step.leaves

    def loss(parameters):
        outputs = nnx.merge(graphdef, parameters)(batch.features, batch.masks)
        return cross_entropy(outputs, batch.targets, batch.sample_mask)

    for _ in range(3):
        value, gradient = jax.value_and_grad(loss)(parameters)
        updates, state = optimizer.update(gradient, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        leaves, metrics = jax.jit(step.train_step)(leaves, batch)
        assert float(metrics.loss) == pytest.approx(float(value), abs=1e-6)
        assert float(metrics.grad_norm) == pytest.approx(float(optax.tree.norm(gradient)), rel=1e-5)
        assert int(metrics.samples) == batch.sample_mask.sum()
    for one, other in zip(jax.tree.leaves(nnx.state(step.model(leaves))), jax.tree.leaves(parameters), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


def test_the_state_is_a_few_flat_leaves():
    step = TrainStep(MeanModel(), make_optimizer(), cross_entropy)
    assert len(step.leaves) <= 6
    assert all(isinstance(leaf, jax.Array) for leaf in step.leaves)


def test_one_compile_per_shape_over_epochs_and_evaluation():
    batcher = make_batcher()
    with CompileLog() as log:
        fit(MeanModel(), batcher, epochs=3, evaluate_on=make_batcher(), progress=False)
    assert log["train_step"].backend_compiles == len(batcher.stats.shapes)
    assert log["eval_step"].backend_compiles == len(make_batcher().forecast().shapes)


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


def test_state_that_a_step_would_not_update_is_refused():
    class WithStatistics(MeanModel):
        def __init__(self):
            super().__init__()
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))

    with pytest.raises(TrainingError, match=r"state other than parameters.*norm"):
        TrainStep(WithStatistics(), optax.sgd(0.1), cross_entropy)


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
        evaluate(StepTable(step.eval_step), step.leaves, batcher)


@pytest.mark.parametrize(("options", "message"), [({"epochs": 0}, "epochs=0"), ({"patience": 2}, "patience=2")])
def test_bad_fit_options(options, message):
    with pytest.raises(TrainingError, match=message):
        fit(MeanModel(), make_batcher(), **{"epochs": 1, **options}, progress=False)


@pytest.mark.parametrize("options", [{"learning_rate": 0}, {"warmup_steps": -1}, {"clip": 0}])
def test_bad_optimizer_options(options):
    with pytest.raises(TrainingError, match=next(iter(options))):
        make_optimizer(**options)


def test_the_bar_shows_epoch_and_loss(capsys):
    fit(MeanModel(), make_batcher(), epochs=1)
    assert "epoch 0  loss" in capsys.readouterr().out
