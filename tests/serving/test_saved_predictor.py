"""Saved, exported, or in the checkpoints of a training: another process gives the same outputs."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import (
    BucketBatcher,
    Fixed,
    Ladder,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.compiling import forbid_compiles
from multimodal_pad.errors import TrainingError
from multimodal_pad.scheduling.policies import Fixed as FixedPolicy
from multimodal_pad.serving import Predictor, folders, load_exported
from multimodal_pad.sources import NumpyDir, convert
from multimodal_pad.training import fit
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.described import MADE_OF, describe_policy, policy_of
from tests.helpers.devices import cpu_environment
from tests.helpers.serving import PLANS, Tagger, alone, audio_transformer, make_requests, worst
from tests.helpers.training import MeanModel

SAMPLES = make_requests(40, seed=21)

LOAD = """
import sys
import numpy as np
from multimodal_pad.compiling import forbid_compiles
blocked = ("multimodal_pad.models", "tests")
sys.modules.update(dict.fromkeys(blocked))  # without the code of any model
from multimodal_pad.serving import Predictor, load_exported
with np.load("samples.npz") as file:
    samples = [{name: file[f"{name}{i}"] for name in ("text", "audio")} for i in range(len(file) // 2)]
def run(load, folder):
    predictor = load(folder)
    with forbid_compiles():
        outputs = predictor(samples)
        with predictor.serve() as server:
            np.testing.assert_allclose(server.submit(samples[0]).result(), outputs[0], atol=1e-5)
    np.save(folder + ".npy", outputs)
for layout in ("padded", "packed"):
    if "exported" in sys.argv:
        run(load_exported, "exported-" + layout)
assert not [name for name in sys.modules if name.startswith("multimodal_pad.models.")]
for name in blocked:
    del sys.modules[name]
for layout in ("padded", "packed"):
    run(Predictor.load, "saved-" + layout)
"""


@pytest.mark.slow
def test_a_new_process_gives_the_same(tmp_path):
    """What is exported without the code of the model."""
    arrays = {f"{name}{i}": sample[name] for i, sample in enumerate(SAMPLES) for name in ("text", "audio")}
    np.savez(tmp_path / "samples.npz", **arrays)
    exports = ["exported"] if find_spec("flatbuffers") else []
    table = LengthTable.measure(SAMPLES, ("audio",))
    plans = {"padded": plan_shapes(table, max_shapes=2, batch_size=4), "packed": plan_packing(table, batch_size=4)}
    for layout, plan in plans.items():
        made = Predictor(audio_transformer(), plan, example=SAMPLES[0])
        made.save(tmp_path / f"saved-{layout}")
        if exports:
            made.export(tmp_path / f"exported-{layout}", platforms=["cpu"])
    assert sorted(path.name for path in (tmp_path / "saved-packed").iterdir()) == ["parameters.npz", "predictor.json"]
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *exports],
        capture_output=True,
        text=True,
        check=False,
        env={**cpu_environment(), "PYTHONPATH": os.pathsep.join(sys.path)},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    wanted = alone(SAMPLES, {"audio": 19}, audio_transformer())
    outputs = sorted(tmp_path.glob("*.npy"))
    assert len(outputs) == 2 + 2 * len(exports)
    assert max(worst(np.load(path), wanted) for path in outputs) < 1e-5


@pytest.mark.slow
def test_programs_for_other_platforms_are_lowered_here(tmp_path):
    """With the attention of each: tiles of real positions on CPU, and products of matrices elsewhere."""
    pytest.importorskip("flatbuffers")
    from jax import export

    def programs(folder, **options):
        predict = Predictor(audio_transformer(**options), Fixed({"audio": 20}), batch_size=2, example=SAMPLES[0])
        predict.export(tmp_path / folder)
        description = json.loads((tmp_path / folder / "exported.json").read_text())
        read = {
            each["platform"]: export.deserialize(bytearray((tmp_path / folder / each["file"]).read_bytes()))
            for each in description["programs"]
        }
        assert all(program.platforms == (platform,) for platform, program in read.items())
        return {platform: operations(program.mlir_module()) for platform, program in read.items()}

    chosen, tiled, xla = programs("chosen"), programs("tiled", attention="tiled"), programs("xla", attention="xla")
    assert set(chosen) == {"cpu", "cuda", "tpu"}
    assert chosen == {"cpu": tiled["cpu"], "cuda": xla["cuda"], "tpu": xla["tpu"]}
    assert tiled["cpu"] != xla["cpu"]


def operations(text):
    """What an MLIR program does, without where in the source it is from."""
    return [line.split(" loc(")[0].strip() for line in text.splitlines() if not line.startswith("#loc")]


def test_a_module_of_ones_own_is_loaded_into_one_made_alike(tmp_path):
    model = Tagger(seed=1)
    model.tag.bias[...] = jnp.arange(4.0)
    made = Predictor(
        model, PLANS["packed"](), positions={"tags": "audio"}, long_samples="window", example=SAMPLES[0], smaller=(2,)
    )
    made.save(tmp_path / "saved")
    loaded = Predictor.load(tmp_path / "saved", model=Tagger(seed=2))
    assert (loaded.positions, loaded.long_samples, loaded.smaller) == ({"tags": "audio"}, "window", (2,))
    with forbid_compiles():
        outputs = loaded(SAMPLES)
    for sample, output in zip(SAMPLES, outputs, strict=True):
        np.testing.assert_allclose(output["tags"], model.tags(sample["audio"]), atol=1e-5)
    assert Predictor.load(tmp_path / "saved", model=Tagger(), long_samples="error", ahead=False).long_samples == "error"
    with pytest.raises(PaddingError, match=r"the model is a tests\.helpers\.serving\.Tagger, which only its own code"):
        Predictor.load(tmp_path / "saved")
    with pytest.raises(PaddingError, match=r"has nothing at params/head/bias, and the model has float32\[2\]"):
        Predictor.load(tmp_path / "saved", model=MeanModel())
    pytest.importorskip("flatbuffers")
    made.export(tmp_path / "exported", platforms=["cpu"])
    exported = load_exported(tmp_path / "exported")
    for output, other in zip(exported(SAMPLES), outputs, strict=True):
        np.testing.assert_allclose(output["tags"], other["tags"], atol=1e-6)
        assert output["count"] == other["count"]


class Narrow(nnx.Module):
    """Parameters in bfloat16, and a random key beside them."""

    def __init__(self, seed=0):
        self.head = nnx.Linear(3, 2, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(seed))
        self.dropout = nnx.Dropout(0.5, rngs=nnx.Rngs(seed))

    def __call__(self, batch):
        return self.dropout(self.head(jnp.asarray(batch.features["audio"]).sum(axis=1))).astype(jnp.bfloat16)


def test_arrays_of_any_dtype_come_back(tmp_path):
    sample = {"audio": np.ones((2, 3), np.float32)}
    made = Predictor(Narrow(), Fixed({"audio": 4}), batch_size=2, example=sample, standardize=None)
    made.save(tmp_path / "saved")
    loaded = Predictor.load(tmp_path / "saved", model=Narrow(1))
    assert loaded(sample).dtype == jnp.bfloat16
    np.testing.assert_array_equal(loaded(sample), made(sample))


@pytest.fixture(scope="module")
def standardised(tmp_path_factory):
    """A corpus of raw features, the cache that it was converted to, and the checkpoints of a training on that."""
    folder = tmp_path_factory.mktemp("standardised")
    rng = np.random.default_rng(4)
    raw = [
        {
            "audio": (50 + 9 * rng.standard_normal((1 + len(sample["audio"]), 3))).astype("f4"),
            "targets": np.int32(i % 2),
        }
        for i, sample in enumerate(SAMPLES)
    ]
    convert({"train": raw}, folder / "cache", standardize=["audio"])
    source = NumpyDir(folder / "cache", "train")
    batcher = BucketBatcher(source, Ladder({"audio": [20]}), batch_size=8)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        result = fit(audio_transformer(), batcher, epochs=1, checkpoints=checkpoints, progress=False)
    return folder, raw, source, result.model


@pytest.mark.slow
def test_checkpoints_of_fit_are_loaded_to_predict(standardised, tmp_path):
    """Raw features are standardised as the corpus was; without, features of the cache give the same."""
    folder, raw, source, model = standardised
    loaded = Predictor.load(folder / "checkpoints")
    assert list(loaded.standardize) == ["audio"]
    cached = Predictor(model, Ladder({"audio": [20]}), batch_size=8)
    wanted = cached(source)
    assert worst(loaded(raw), wanted) < 1e-5
    loaded.save(tmp_path / "saved")
    assert worst(Predictor.load(tmp_path / "saved")(raw), wanted) < 1e-5
    assert worst(Predictor.load(folder / "checkpoints", standardize=None)(source), wanted) < 1e-5
    assert np.abs(loaded(raw[0]) - cached(raw[0])).max() > 1e-3  # what is not standardised gives something else


def test_checkpoints_that_do_not_say_what_the_model_was(tmp_path, monkeypatch):
    samples = [{**sample, "targets": np.int32(0)} for sample in SAMPLES]
    policy = Fixed({"text": 8, "audio": 19})
    batcher = BucketBatcher(samples, policy, batch_size=8)
    with monkeypatch.context() as patched, Checkpoints(tmp_path / "old") as checkpoints:
        patched.setattr("multimodal_pad.training.loop.describe_training", lambda *_: None)
        patched.setattr("multimodal_pad.training.loop.MADE_OF", "other")
        model = fit(MeanModel(), batcher, epochs=1, checkpoints=checkpoints, progress=False).model
    with pytest.raises(PaddingError, match=r"don't say what the model was made of; give model=, .* and plan="):
        Predictor.load(tmp_path / "old")
    loaded = Predictor.load(tmp_path / "old", model=MeanModel(), plan=policy, batch_size=4)
    assert worst(loaded(samples), Predictor(model, policy, batch_size=8)(samples)) < 1e-6
    with Checkpoints(tmp_path / "new") as checkpoints:
        fit(MeanModel(), batcher, epochs=1, checkpoints=checkpoints, progress=False)
    assert checkpoints.restore().record[MADE_OF]["inputs"]["audio"] == {"feature_shape": [3], "dtype": "float32"}
    with pytest.raises(PaddingError, match=r"MeanModel, which only its own code can make; give model="):
        Predictor.load(tmp_path / "new")
    assert worst(Predictor.load(tmp_path / "new", model=MeanModel())(samples), loaded(samples)) < 1e-6
    with pytest.raises(PaddingError, match=r"holds neither predictor.json nor a checkpoint"):
        Predictor.load(tmp_path)


def test_policies_are_made_again_of_what_describes_them():
    class Own(FixedPolicy):
        pass

    edges = Ladder({"text": [4, 8], "audio": [16]})
    for policy in (edges, Fixed({"text": 3}), Planned(PLANS["padded"]()), Packed(PLANS["pairs"]())):
        again = policy_of(json.loads(json.dumps(describe_policy(policy))))
        assert type(again) is type(policy)
        assert again.fingerprint == policy.fingerprint
    with pytest.raises(PaddingError, match=r"the policy is a .*Own, which only its own code can make; give plan="):
        policy_of(describe_policy(Own({"text": 3})))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A predictor that compiles in no time, and its folder."""
    sample = {"audio": np.ones((2, 3), np.float32)}
    made = Predictor(MeanModel(), Fixed({"audio": 4}), batch_size=2, example=sample, vocabularies={"text": {"a": 2}})
    made.save(tmp_path_factory.mktemp("small") / "saved")
    return made, tmp_path_factory.getbasetemp() / "small0" / "saved"


def copied(folder, to, **files):
    to.mkdir()
    for path in folder.iterdir():
        data = files.get(path.stem, path.read_bytes())
        if data is not None:
            (to / path.name).write_bytes(data)
    return to


def test_vocabularies_travel_along(small):
    _, folder = small
    assert Predictor.load(folder, model=MeanModel()).vocabularies == {"text": {"a": 2}}


def test_damage_is_told(small, tmp_path):
    _, folder = small
    load = {"model": MeanModel()}
    with pytest.raises(PaddingError, match="nowhere: no such folder"):
        Predictor.load(tmp_path / "nowhere")
    parameters = bytearray((folder / "parameters.npz").read_bytes())
    parameters[len(parameters) // 3] ^= 1
    for number, (files, message) in enumerate(
        [
            ({"predictor": b"{"}, "predictor.json: not JSON"),
            ({"predictor": b"[]"}, r"predictor.json: is None, not \('multimodal_pad predictor', 1\)"),
            ({"parameters": b"PK"}, "parameters.npz: damaged, or not of this predictor"),
            ({"parameters": bytes(parameters)}, "parameters.npz: damaged, or not of this predictor"),
            ({"parameters": None}, "parameters.npz: no such file"),
        ]
    ):
        with pytest.raises(PaddingError, match=message):
            Predictor.load(copied(folder, tmp_path / str(number), **files), **load)


def test_nothing_is_overwritten_and_nothing_half_written(small, tmp_path, monkeypatch):
    made, folder = small
    with pytest.raises(FileExistsError, match="name another folder"):
        made.save(folder)

    def full(*_, **__):
        raise OSError("no space left")

    monkeypatch.setattr(folders.np, "savez", full)
    with pytest.raises(OSError, match="no space"):
        made.save(tmp_path / "saved")
    assert list(tmp_path.iterdir()) == []


class Outputs(NamedTuple):
    logits: Any


class Own(MeanModel):
    def __call__(self, batch):
        return Outputs(super().__call__(batch))


def test_exported_programs_say_what_is_wrong(small, tmp_path):
    pytest.importorskip("flatbuffers")
    made, folder = small
    with pytest.raises(PaddingError, match=r"got platforms=\['metal'\]; choose some of \['cpu', 'cuda', 'rocm'"):
        made.export(tmp_path / "exported", platforms=["metal"])
    made.export(tmp_path / "tpu", platforms=["tpu"])
    with pytest.raises(PaddingError, match="exported for tpu, and JAX runs on cpu here; export for that, too"):
        load_exported(tmp_path / "tpu")
    with pytest.raises(PaddingError, match=r"exported.json: no such file"):
        load_exported(folder)
    made.export(tmp_path / "cpu", platforms=["cpu"])
    loaded = load_exported(tmp_path / "cpu")
    for act in (loaded.save, loaded.export):
        with pytest.raises(PaddingError, match="of an exported program"):
            act(tmp_path / "again")
    (tmp_path / "cpu" / "cpu-0.bin").write_bytes(b"other")
    with pytest.raises(PaddingError, match="has changed since it was written; export again"):
        load_exported(tmp_path / "cpu")

    own = Predictor(Own(), Fixed({"audio": 4}), batch_size=2, example={"audio": np.ones((2, 3), np.float32)})
    with pytest.raises(PaddingError, match="whose outputs are no arrays, dicts, lists or tuples"):
        own.export(tmp_path / "own", platforms=["cpu"])


def test_an_unreadable_record_of_checkpoints_is_that_of_training(tmp_path):
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"weights": np.zeros(3)}, {})
    with pytest.raises(TrainingError, match="has no 'params'"):
        Predictor.load(tmp_path, model=MeanModel(), plan=Fixed({"audio": 4}), batch_size=2)
