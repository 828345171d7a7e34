import json
from contextlib import nullcontext
from importlib.util import find_spec

import jax
import numpy as np
import pytest
from rich.progress import Progress

from experiments.lib import corpora
from experiments.peers import __main__ as benchmark_peers
from experiments.peers import contenders, training


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("peers") / "run"
    assert benchmark_peers.main(["--quick", "--only", "training", "--out", str(folder)]) == 0
    assert (folder / "peers.png").stat().st_size > 10_000
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def torch_measured():
    """PyTorch's side runs on CPU, so it has a part only where JAX's does too."""
    return find_spec("torch") and jax.default_backend() == "cpu"


@pytest.mark.experiment
def test_everybody_who_is_installed_is_measured(results):
    rows = results["training"]["rows"]
    libraries = {row["library"] for row in rows}
    assert libraries == {"jax", "jax.cores", *(["torch"] if torch_measured() else [])}
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
    named = {ours: [name for name, _ in others] for ours, others in training.ratios(results["training"]).items()}
    eager = [f"PyTorch eager, own maxima, {grouping} batches" for grouping in ("random", "length")]
    unpadded = [f"PyTorch eager, {how}, random batches" for how in ("nested jagged tensors", "attention by sample")]
    fixed, exact = ("fixed padding, random batches", "exact padding, random batches")
    theirs = torch_measured()
    beside_packed = ["planned, 8 shapes, length batches", fixed, *(eager + unpadded if theirs else [])]
    assert named == {
        "packed": beside_packed,
        "packed, a share on each core": beside_packed,
        "8 planned shapes": [fixed, exact, *(eager if theirs else [])],
    }


def test_ratios_are_taken_round_by_round():
    def row(contender, rates):
        return {**contender._asdict(), "samples_per_second": rates}

    planned, fixed = (contenders.CONTENDERS[name] for name in ("planned_8", "fixed"))
    measured = {"rows": [row(planned, [8.0, 20.0]), row(fixed, [1.0, 2.0])]}
    (((name, values),),) = training.ratios(measured).values()
    assert name == "fixed padding, random batches"
    np.testing.assert_array_equal(values, [8, 10])


def test_packed_is_told_beside_planned_and_fixed():
    def row(name, compiling, size):
        return {**contenders.CONTENDERS[name]._asdict(), "compile_seconds": {"1": compiling}, "device_bytes": size}

    rows = [row("packed", 10.0, 100_000_000), row("planned_8", 150.0, 9), row("fixed", 20.0, 2_000_000_000)]
    assert training.costs({"rows": rows}) == [
        "Compiling all train steps: packed 10.0 s, 8 planned shapes 150.0 s, 15.0 times as much.",
        "Device memory of the step: packed 100 MB, fixed padding 2,000 MB, 20.0 times as much.",
    ]
    assert training.costs({"rows": rows[1:]}) == []


def test_somebody_of_this_project_must_train(capsys, tmp_path):
    out = ["--out", str(tmp_path / "run")]
    assert benchmark_peers.main(["--only", "training", "--contenders", "torch_length", *out]) == 2
    assert "name one that trains with JAX, such as packed" in capsys.readouterr().err


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
    chosen = tuple(contenders.CONTENDERS[name] for name in ("planned_8", "torch_length"))
    config = contenders.Config(corpora.on_corpus(None), rounds=3, contenders=chosen)
    found = training.compare(config, Progress(disable=True))
    why = "torch: its process ended" if platform == "cpu" else "torch: runs on cpu here, and JAX on gpu"
    assert found["gave_up"] == [{"library": "torch", "why": why}]
    (row,) = found["rows"]
    assert (row["library"], len(row["turns"])) == ("jax", 3)
    assert row["epoch_seconds"] == pytest.approx(0.6)
    assert row["seconds"]["3"] == pytest.approx(1 + 3 + 3 * 0.6)
    assert f"Left out: {why}." in training.table(found).markdown()


NAMES = ("text", "audio")
PADDED = {"text": 6, "audio": 15}


@pytest.fixture(scope="module")
def taught():
    """Samples that lack modalities, a model's configuration and parameters, its outputs, and losses of three steps."""
    pytest.importorskip("torch")
    from flax import nnx

    from experiments.lib.measure import parameters_of
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
    batch = pad_samples(samples, modalities=NAMES, pad_to=PADDED)
    parameters = parameters_of(model)
    step = TrainStep(model, make_optimizer(1e-2), cross_entropy)
    outputs = np.asarray(jax.jit(step.eval_step)(step.state, batch).outputs)
    train_step, state, losses = jax.jit(step.train_step), step.state, []
    for _ in range(3):
        state, metrics = train_step(state, batch)
        losses.append(float(metrics.loss))
    return samples, config, parameters, outputs, losses


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile:UserWarning")
def test_flex_attention_attends_as_the_model_does(taught):
    torch = pytest.importorskip("torch")
    from experiments.lib import twin
    from experiments.peers import torch_side

    samples, config, parameters, outputs, _ = taught
    features, positions, _ = torch_side.lay_out("flex", samples, NAMES, PADDED)
    with torch.no_grad():  # it has no backward pass on CPU
        np.testing.assert_allclose(twin.Twin(config, parameters)(features, positions), outputs, atol=1e-5)


def test_flex_attention_is_left_out_on_cpu():
    torch = pytest.importorskip("torch")
    from experiments.peers import torch_side

    if torch.cuda.is_available():
        pytest.skip("it trains on a GPU")
    with pytest.raises(RuntimeError, match="FlexAttention has no backward pass on CPU"):
        torch_side.prepare("torch.flex", contenders.Config(corpora.on_corpus(None)), {})


@pytest.mark.parametrize("layout", ["policy", "maxima", "nested", "sample"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
def test_the_twin_learns_as_the_model_does(layout, taught):
    torch = pytest.importorskip("torch")
    from experiments.lib import twin
    from experiments.peers import torch_side

    samples, config, parameters, outputs, losses = taught
    other = twin.Twin(config, parameters)
    laid_out = torch_side.lay_out(layout, samples, NAMES, PADDED)
    np.testing.assert_allclose(other(*laid_out[:2]).detach().numpy(), outputs, atol=1e-5)
    optimizer = twin.make_optimizer(other, 1e-2)
    theirs = [float(twin.train_step(other, optimizer, *laid_out)) for _ in range(3)]
    np.testing.assert_allclose(theirs, losses, rtol=1e-4)
    gradients = [p.grad for p in other.parameters() if p.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
