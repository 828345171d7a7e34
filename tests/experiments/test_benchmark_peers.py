import json
from contextlib import nullcontext
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from rich.progress import Progress

from experiments import benchmark_peers, compare_padding
from experiments.peers import contenders, training


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers") / "run"
    assert benchmark_peers.main(["--quick", "--only", "training", "--out", str(folder)]) == 0
    assert (folder / "benchmark_peers.png").stat().st_size > 10_000
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def torch_measured():
    """PyTorch's side runs on CPU, so it has a part only where JAX's does too."""
    return find_spec("torch") and jax.default_backend() == "cpu"


@pytest.mark.experiment
def test_everybody_who_is_installed_is_measured(results):
    rows = results["training"]["rows"]
    libraries = {row["library"] for row in rows}
    assert libraries == ({"jax", "torch"} if torch_measured() else {"jax"})
    for row in rows:
        assert len(row["turns"]) == results["training"]["config"]["rounds"]
        assert all(turn for turn in row["turns"])
        assert min(row["samples_per_second"]) > 0
        assert row["seconds"]["1"] < row["seconds"]["3"] < row["seconds"]["10"]
    assert ("torch" in results["not_installed"]) == (find_spec("torch") is None)


@pytest.mark.experiment
def test_the_models_are_the_same(results):
    if not torch_measured():
        pytest.skip("PyTorch is not measured here")
    assert results["training"]["parity"]["outputs_apart"] <= 1e-4


@pytest.mark.experiment
def test_seconds_are_made_of_what_they_are_made_of(results):
    for row in results["training"]["rows"]:
        for epochs in ("1", "3", "10"):
            parts = row["preparing_seconds"] + row["compile_seconds"][epochs] + int(epochs) * row["epoch_seconds"]
            assert row["seconds"][epochs] == pytest.approx(parts)
    exact = next(row for row in results["training"]["rows"] if row["name"] == "exact padding")
    assert exact["compile_seconds"]["10"] > exact["compile_seconds"]["1"] > 0
    assert exact["shapes_compiled"] == 1


@pytest.mark.experiment
def test_the_table_and_the_ratios(results):
    text = benchmark_peers.markdown(results)
    assert "| fixed padding | random |" in text
    assert "~" in text  # exact padding compiled one shape of many
    named = [name for name, _ in training.ratios(results["training"])]
    ours = ["fixed padding, random batches", "exact padding, random batches"]
    theirs = [f"PyTorch eager, own maxima, {grouping} batches" for grouping in ("random", "length")]
    assert named == (ours + theirs if torch_measured() else ours)


def test_ratios_are_taken_round_by_round():
    def row(contender, rates):
        return {**contender._asdict(), "samples_per_second": rates}

    measured = {"rows": [row(contenders.OURS, [8.0, 20.0]), row(contenders.FIXED, [1.0, 2.0])]}
    ((name, values),) = training.ratios(measured)
    assert name == "fixed padding, random batches"
    np.testing.assert_array_equal(values, [8, 10])


class Scripted:
    """A worker whose library answers ``turns`` turns, and then fails."""

    def __init__(self, name, turns):
        self.name = name
        facts = {
            "preparing_seconds": 1.0,
            "shapes": dict.fromkeys(("1", "3", "10"), 2),
            "shapes_compiled": None,
            "compile_seconds": dict.fromkeys(("1", "3", "10"), 3.0),
            "work": [[1.0, 1.0], [2.0, 3.0], [3.0, 5.0]],
            "cost_efficiency": 0.5,
        }
        self.first = {"contenders": [facts], "samples": 9, "parameter_count": 7, "version": "1", "platform": "cpu"}
        self.first["parameters"] = {"x": np.zeros(7)}
        self.turns = turns

    def ask(self, question, *_):
        if question == "forward":
            return np.zeros(3)
        self.turns -= 1
        if self.turns < 0:
            raise RuntimeError("torch: its process ended")
        return [(0, 0.1), (1, 0.2), (2, 0.3)]


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_others_go_on_without_a_library_that_fails_or_runs_elsewhere(platform, monkeypatch):
    workers = {"jax": Scripted("jax", 3), "torch": Scripted("torch", 1)}
    workers["jax"].first["platform"] = platform
    monkeypatch.setattr(training, "start", lambda name, *_, **__: nullcontext(workers[name]))
    monkeypatch.setattr(training, "find_spec", lambda _: True)
    chosen = (contenders.OURS, contenders.EAGER_LENGTH)
    config = contenders.Config(compare_padding.on_corpus(None), rounds=3, contenders=chosen)
    found = training.compare(config, Progress(disable=True))
    why = "torch: its process ended" if platform == "cpu" else "torch: runs on cpu here, and JAX on gpu"
    assert found["gave_up"] == [{"library": "torch", "why": why}]
    (row,) = found["rows"]
    assert (row["library"], len(row["turns"])) == ("jax", 3)
    assert row["epoch_seconds"] == pytest.approx(0.6)
    assert row["seconds"]["3"] == pytest.approx(1 + 3 + 3 * 0.6)
    assert f"Left out: {why}." in training.table(found).markdown()


def test_the_twin_learns_as_the_model_does():
    torch = pytest.importorskip("torch")
    from flax import nnx

    from experiments.peers import twin
    from experiments.peers.jax_side import parameters_of
    from multimodal_pad import pad_samples
    from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
    from multimodal_pad.training import TrainStep, cross_entropy, make_optimizer

    config = TransformerConfig(
        {"text": ModalityConfig(vocabulary_size=9), "audio": ModalityConfig(feature_width=4, kernel_size=3)},
        num_outputs=3,
        d_model=8,
        num_heads=2,
        crossmodal_layers=2,
        memory_layers=1,
        dropout_rate=0.0,
    )
    model = MultimodalTransformer(config, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    samples = [
        {
            "text": rng.integers(0, 9, words),
            "audio": rng.standard_normal((frames, 4), np.float32),
            "targets": np.int32(words % 3),
        }
        for words, frames in ((3, 0), (5, 7), (1, 12), (0, 4))
    ]
    names = ("text", "audio")
    batch = pad_samples(samples, modalities=names, pad_to={"text": 6, "audio": 15})
    other = twin.Twin(config, parameters_of(model))
    padded = twin.pad(samples, names, {"text": 6, "audio": 15})
    step = TrainStep(model, make_optimizer(1e-2), cross_entropy)
    outputs = jax.jit(step.eval_step)(step.state, batch).outputs
    np.testing.assert_allclose(other(*padded[:2]).detach().numpy(), outputs, atol=1e-5)
    own = twin.pad(samples, names, None)
    np.testing.assert_allclose(other(*own[:2]).detach().numpy(), other(*padded[:2]).detach().numpy(), atol=1e-5)
    train_step = jax.jit(step.train_step)
    state, optimizer, ours, theirs = step.state, twin.make_optimizer(other, 1e-2), [], []
    for _ in range(3):
        state, metrics = train_step(state, batch)
        ours.append(float(metrics.loss))
        theirs.append(float(twin.train_step(other, optimizer, *padded)))
    np.testing.assert_allclose(ours, theirs, rtol=1e-4)
    gradients = [p.grad for p in other.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
