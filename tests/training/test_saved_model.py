"""What fit saves is read by name: as a model, and without this package."""

import json
import subprocess
import sys
import zlib

import jax
import numpy as np
import pytest
from flax import nnx

from multimodal_pad.compiling import CompileLog, forbid_compiles
from multimodal_pad.errors import CheckpointWarning, TrainingError
from multimodal_pad.training import fit, make_optimizer
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.checkpoint_folder import make_record
from multimodal_pad.training.saved_model import restore_model
from tests.helpers.devices import cpu_environment
from tests.helpers.training import DeepModel, MeanModel, make_batcher, make_samples


class Listed(MeanModel):
    """Parameters whose names are numbers."""

    def __init__(self, rngs=None):
        super().__init__(rngs=rngs)
        self.layers = nnx.List([nnx.Linear(2, 2, rngs=rngs or nnx.Rngs(0)) for _ in range(11)])

    def __call__(self, batch):
        x = super().__call__(batch)
        for layer in self.layers:
            x = x + layer(x)
        return x


def deep(seed=0):
    return DeepModel(norm=True, dropout=0.2, rngs=nnx.Rngs(seed))


def train(folder, model, epochs=3, **options):
    with Checkpoints(folder) as checkpoints:
        return fit(
            model,
            make_batcher(),
            epochs=epochs,
            optimizer=make_optimizer(0.1),
            checkpoints=checkpoints,
            progress=False,
            **options,
        )


def numbers(model):
    return [
        jax.random.key_data(x) if jax.numpy.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        for x in jax.tree.leaves(nnx.state(model))
    ]


def assert_same(one, other):
    for a, b in zip(numbers(one), numbers(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
@pytest.mark.parametrize("make", [deep, lambda seed=0: Listed(nnx.Rngs(seed))], ids=["deep", "listed"])
def test_the_model_of_a_checkpoint_is_that_of_the_training(make, tmp_path):
    result = train(tmp_path, make())
    model = make(1)
    before = numbers(model)
    with CompileLog() as log, forbid_compiles():
        restored = restore_model(Checkpoints(tmp_path), model)
    assert log.total.backend_compiles == 0
    assert_same(restored, result.model)
    batch = next(make_batcher().epoch(0))
    np.testing.assert_array_equal(restored(batch), result.model(batch))
    for a, b in zip(numbers(model), before, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_the_best_epoch_or_the_last_step(tmp_path):
    """Evaluated on flipped labels the first epoch is the best."""
    flipped = make_batcher([{**sample, "targets": np.int32(1 - sample["targets"])} for sample in make_samples()])
    result = train(tmp_path / "best", deep(), evaluate_on=flipped)
    last = train(tmp_path / "last", deep())
    assert result.best_epoch == 0
    assert_same(restore_model(Checkpoints(tmp_path / "best"), deep(1)), result.model)
    assert_same(restore_model(Checkpoints(tmp_path / "best"), deep(1), best=False), last.model)
    assert_same(restore_model(Checkpoints(tmp_path / "last"), deep(1)), last.model)


@pytest.mark.slow
def test_damage_is_skipped(tmp_path):
    first = train(tmp_path, deep(), epochs=1)
    train(tmp_path, deep(), epochs=2)
    newest = max((path for path in tmp_path.iterdir()), key=lambda path: int(path.name))
    for path in (newest / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning, match="is skipped"):
        assert_same(restore_model(Checkpoints(tmp_path), deep(1)), first.model)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            lambda: MeanModel(5),
            r"has float32\[2\] at state\['params'\]\['head'\]\['bias'\].*float32\[5\].*another model",
        ),
        (deep, r"has nothing at state"),
    ],
)
def test_another_model_is_refused(model, message, tmp_path):
    train(tmp_path, MeanModel(), epochs=1)
    with pytest.raises(TrainingError, match=message):
        restore_model(Checkpoints(tmp_path), model())


def test_where_there_is_no_model(tmp_path):
    with pytest.raises(TrainingError, match="which has no checkpoint; name the folder of a training"):
        restore_model(Checkpoints(tmp_path), deep())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"weights": np.zeros(3)}, {})
    with pytest.raises(TrainingError, match="has no 'params'; restore what fit saved"):
        restore_model(Checkpoints(tmp_path), deep())


def test_without_a_state_to_compare_the_arrays_come_by_name(tmp_path):
    state = {"a.b": [np.zeros(2), {"": np.ones(3), "c/d%": np.arange(4)}], "e": np.float32([1])}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, state, {})
        got = checkpoints.restore().state
    assert jax.tree.map(np.shape, got) == {"a.b": {"0": (2,), "1": {"": (3,), "c/d%": (4,)}}, "e": (1,)}
    np.testing.assert_array_equal(got["a.b"]["1"]["c/d%"], np.arange(4))


BY_ORBAX = """
import sys, jax, numpy as np, orbax.checkpoint as ocp
for reader in (ocp.StandardCheckpointer(), ocp.PyTreeCheckpointer()):
    state = reader.restore(sys.argv[1])
    assert set(state) == {"step", "params", "opt_state", "rest", "best"}, set(state)
    assert set(state["params"]) == {"encoder", "norm", "head"}
    for part in (state, state["best"]):
        assert part["params"]["head"]["kernel"].shape == (8, 2)
        assert part["rest"]["norm"]["mean"].shape == (8,)
    assert int(state["step"]) == int(sys.argv[2])
    reader.close()
assert not [name for name in sys.modules if "multimodal" in name]
np.save(sys.argv[3], state["best"]["params"]["head"]["kernel"])
"""


@pytest.mark.slow
def test_orbax_alone_gives_the_parameters_by_name(tmp_path):
    result = train(tmp_path / "run", deep(), evaluate_on=make_batcher(make_samples(23, seed=1)))
    step = max(int(path.name) for path in (tmp_path / "run").iterdir())
    command = [sys.executable, "-c", BY_ORBAX, str(tmp_path / "run" / str(step) / "state"), str(step)]
    done = subprocess.run(
        [*command, str(tmp_path / "kernel.npy")],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=cpu_environment(),
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(tmp_path / "kernel.npy"), result.model.head.kernel[...])


def test_checkpoints_of_before_names_are_refused(tmp_path, monkeypatch):
    """As the first version wrote them: arrays under numbers, and a record that does not say its format."""

    def first_format(copies, record, loss):
        saved = make_record(copies, record, loss)
        content = saved["content"]
        del content["format"]
        for leaf in content["leaves"]:
            del leaf["path"]
        monkeypatch.undo()
        text = json.dumps(content, sort_keys=True)
        return {"content": content, "crc32": zlib.crc32(text.encode())}

    monkeypatch.setattr("multimodal_pad.training.checkpoint.make_record", first_format)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, {"leaves": [np.zeros(8, np.float32)], "best": np.zeros(8, np.float32)}, {})
    message = (
        r"3 is of format 1, and this version of multimodal_pad reads format 2, .*go on with the version that wrote"
    )
    with pytest.raises(TrainingError, match=message):
        train(tmp_path, MeanModel())
    with pytest.raises(TrainingError, match=message):
        restore_model(Checkpoints(tmp_path), MeanModel())


def test_names_that_are_the_same_are_refused(tmp_path):
    @jax.tree_util.register_pytree_with_keys_class
    class Twice:
        def tree_flatten_with_keys(self):
            key = jax.tree_util.GetAttrKey("same")
            return [(key, np.zeros(2)), (key, np.ones(2))], None

        @classmethod
        def tree_unflatten(cls, _, children):
            raise NotImplementedError

    with (
        pytest.raises(TrainingError, match=r"state\.same has the name of another array"),
        Checkpoints(tmp_path) as saved,
    ):
        saved.save(1, Twice(), {})


def test_a_record_is_refused_before_arrays_are_read(tmp_path):
    def refuse(record):
        raise TrainingError(f"got {record['epoch']}")

    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, {"a": np.zeros(2)}, {"epoch": 7})
        with pytest.raises(TrainingError, match="got 7"):
            checkpoints.restore({"b": np.zeros(9)}, check=refuse)
