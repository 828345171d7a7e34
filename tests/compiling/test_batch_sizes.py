import re
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from multimodal_pad import (
    BucketBatcher,
    LengthTable,
    PaddingError,
    Planned,
    PlanWarning,
    ShapePlan,
    TransformerCost,
    pad_samples,
    plan_shapes,
)
from multimodal_pad.compiling import CompileLog, StepTable, batch_sizes, fit_batch_sizes, warm_up
from multimodal_pad.compiling.memory_search import FIRST_ROWS
from multimodal_pad.errors import PlanError
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.sources import Synthetic
from multimodal_pad.training import TrainStep, cross_entropy
from tests.helpers.devices import on_cpu

SAMPLES = [{"audio": np.ones((n, 10), np.float32)} for n in [8] * 400 + [40] * 300 + [100] * 50]
PLAN = plan_shapes(LengthTable.measure(SAMPLES), max_shapes=3)
EXAMPLE = pad_samples(SAMPLES[:1])
STATE = np.zeros((10, 10), np.float32)


@pytest.fixture(autouse=True)
def bytes_of_cpu_programs(request):
    """On a GPU each program has megabytes for matrix products beside what grows with rows, which is measured here."""
    with nullcontext() if request.node.get_closest_marker("gpu") else on_cpu():
        yield


def new_step():
    """Bytes that grow with rows, and with the square of the length: the scores are kept."""

    def scores_step(state, batch):
        def loss(state):
            x = jnp.tanh(batch.features["audio"] @ state)
            return jnp.tanh(jnp.einsum("btf,bsf->bts", x, x)).sum()

        return state - jax.grad(loss)(state)

    return StepTable(scores_step, donate_state=True)


def fit(table, plan=PLAN, **options):
    return fit_batch_sizes(table, plan, STATE, EXAMPLE, **{"bytes_limit": 2e6, "progress": False, **options})


@pytest.mark.parametrize("multiple", [1, 4])
def test_the_most_rows_that_fit(multiple):
    table = new_step()
    plan = fit(table, multiple=multiple)
    assert plan.batch_budget == pytest.approx(1.8e6)
    assert (plan.batch_sizes % multiple == 0).all()
    assert plan.batch_sizes[0] == 400, "no more than the samples of the shape"
    for shape in plan.batch_shapes:
        assert table.steps[shape].device_bytes <= 1.8e6
        more = new_step().compile(
            STATE,
            batch_sizes.batch_struct(
                EXAMPLE, shape._replace(batch_size=shape.batch_size + max(multiple, round(0.05 * shape.batch_size)))
            ),
        )
        assert more.device_bytes > 1.8e6 or shape.batch_size == 400


def test_what_was_confirmed_needs_no_warm_up():
    table = new_step()
    with CompileLog() as log:
        plan = fit(table)
        assert set(plan.batch_shapes) <= set(table.steps)
        before = log["scores_step"].backend_compiles
        warm_up(table, plan.spec(EXAMPLE), STATE, progress=False)
    assert log["scores_step"].backend_compiles == before <= 3 * len(plan), (
        "two probes for each shape, and one to confirm"
    )
    batcher = BucketBatcher(SAMPLES, Planned(plan))
    state = jnp.zeros_like(STATE)
    for batch in batcher.epoch(0):
        state = table(state, batch)
    assert table.unplanned == []
    assert set(batcher.batch_shapes(1)) == set(plan.batch_shapes)


def test_the_plan_can_be_kept(tmp_path):
    plan = fit(new_step())
    plan.save(tmp_path / "plan.json")
    read = ShapePlan.load(tmp_path / "plan.json")
    assert read.batch_shapes == plan.batch_shapes
    assert read.batch_budget == plan.batch_budget


@pytest.mark.slow
def test_bytes_are_predicted_within_a_tenth():
    """The train step of the transformer itself, attention by tiles."""
    table = Synthetic(300).lengths.select(["audio"])
    config = TransformerConfig(
        {"audio": ModalityConfig(8, kernel_size=3)},
        3,
        d_model=16,
        num_heads=2,
        crossmodal_layers=1,
        memory_layers=1,
        attention="tiled",
    )
    step = TrainStep(MultimodalTransformer(config, rngs=nnx.Rngs(0)), optax.adam(1e-3), cross_entropy)
    plan = plan_shapes(table, max_shapes=1, cost=config.cost, alignment=8)
    sample = {name: np.ones((3, 8), np.float32) for name in table.modalities} | {"targets": np.int32(1)}
    steps = StepTable(step.train_step, donate_state=True)
    plan = replace(plan, samples=np.full(len(plan), 4096.0))
    fit = batch_sizes.BatchSizeFit(steps, plan, step.state, pad_samples([sample]), 3e7)
    rows = fit.run()
    assert rows.min() > 5
    for size, shape, search in zip(rows.tolist(), plan.batch_shapes, fit.searches, strict=True):
        real = steps.steps[shape._replace(batch_size=size)].device_bytes
        assert 0.8 * 3e7 < real <= 3e7
        assert search.predicted.get(size, real) == pytest.approx(real, rel=0.1)
        assert search.predicted, "a line said how many rows would fit"
        for tried, said in search.predicted.items():
            assert said == pytest.approx(search.known[tried], rel=0.1)


def test_too_much_for_even_one_row():
    with pytest.raises(
        PlanError, match=r"1 x \(audio 100\) needs [\d,]+ bytes and 9,000 are left for it; cut or drop"
    ) as caught:
        fit(new_step(), bytes_limit=1e4)
    needed = int(str(caught.value).split("needs ")[1].split(" ")[0].replace(",", ""))
    table = new_step()
    real = table.compile(STATE, pad_samples([{"audio": np.ones((100, 10), np.float32)}])).device_bytes
    assert needed == real


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_a_line_that_is_wrong_is_corrected(factor):
    """What is larger than the first rows predict is tried again with fewer rows, what is smaller with more."""

    def step(first):
        def bent_step(state, batch):
            copies = first if len(batch.sample_mask) == FIRST_ROWS else 2
            x = jnp.tanh(batch.features["audio"] @ state)[None] * jnp.arange(1.0, copies + 1)[:, None, None, None]
            return state + jnp.tanh(jnp.einsum("cbtf,cbsf->cbts", x, x)).sum((0, 1, 2, 3))

        return StepTable(bent_step)

    wanted = fit(step(2))
    table = step(round(2 * factor))
    plan = fit(table)
    np.testing.assert_allclose(plan.batch_sizes, wanted.batch_sizes, rtol=0.03)
    assert set(table.steps) == set(plan.batch_shapes)
    assert all(step.device_bytes <= 1.8e6 for step in table.steps.values())


class Device:
    device_kind = "a device"

    def __init__(self, stats):
        self.stats = stats

    def memory_stats(self):
        return self.stats


def test_the_limit_of_the_device(monkeypatch):
    """What the device has, less what is in use beside the state; the least of the devices of a state."""
    monkeypatch.setattr("jax.local_devices", lambda: [Device({"bytes_limit": 3_000_000, "bytes_in_use": 1_000_000})])
    state = np.zeros((10, 10), np.float32)
    assert batch_sizes.usable_bytes("device", state, 0.1) == pytest.approx(0.9 * 2e6)

    class Spread(jax.Array):
        """On two devices; half of it on each."""

        addressable_shards = (
            SimpleNamespace(device=Device({"bytes_limit": 9_000_000, "bytes_in_use": 200}), data=state[:5]),
            SimpleNamespace(device=Device({"bytes_limit": 4_000_000, "bytes_in_use": 500_200}), data=state[:5]),
        )

        def is_deleted(self):
            return False

    assert batch_sizes.usable_bytes("device", [Spread()], 0) == 3_500_000


def test_a_search_that_fails_leaves_nothing_in_the_table():
    table = new_step()
    kept = table.compile(STATE, EXAMPLE)
    with pytest.raises(PlanError, match="needs"):
        fit(table, bytes_limit=1e4)
    assert list(table.steps.values()) == [kept]


def test_a_device_that_does_not_tell(monkeypatch):
    monkeypatch.setattr("jax.local_devices", lambda: [Device(None)])
    with pytest.raises(PaddingError, match="a device does not report how much memory it has; give bytes_limit"):
        batch_sizes.usable_bytes("device", np.zeros(3), 0.1)
    monkeypatch.undo()
    state = jax.device_put(STATE, jax.devices("cpu")[0])
    with pytest.raises(PaddingError, match="cpu does not report how much memory"):
        fit_batch_sizes(new_step(), PLAN, state, EXAMPLE, progress=False)


@pytest.mark.gpu
def test_a_gpu_tells_its_limit():
    """Every sample of a shape fits into a card, so that each shape has as many rows as samples."""
    table = new_step()
    plan = fit(table, bytes_limit="device")
    assert plan.batch_budget > 1e9
    np.testing.assert_array_equal(plan.batch_sizes, plan.samples)
    assert all(step.device_bytes <= plan.batch_budget for step in table.steps.values())


def test_without_xlas_analysis_the_cost_model_says(monkeypatch):
    monkeypatch.setattr("multimodal_pad.compiling.table.device_bytes", lambda _: None)
    device = re.escape(jax.devices()[0].device_kind)
    with pytest.raises(PaddingError, match=rf"no memory analysis on {device}.*\(position_count\) gives no bytes"):
        fit(new_step())
    cost = TransformerCost(("audio",), d_model=8, crossmodal_layers=1, memory_layers=1)
    priced = plan_shapes(LengthTable.measure(SAMPLES), max_shapes=3, cost=cost)
    with pytest.warns(PlanWarning, match=rf"no memory analysis on {device}; rows per batch follow from the bytes"):
        plan = fit(new_step(), priced)
    row_bytes = cost.activation_bytes(plan.lengths) + plan.lengths[:, 0] * (10 * 4 + 1) + 1
    room = 1.8e6 - STATE.nbytes
    assert (plan.batch_sizes * row_bytes <= room).all()
    assert (((plan.batch_sizes + 1) * row_bytes > room) | (plan.batch_sizes == plan.samples)).all()
    with pytest.warns(PlanWarning), pytest.raises(PlanError, match=r"1 x \(audio 100\) needs"):
        fit(new_step(), replace(priced, batch_sizes=np.array([1, 1, 1])), bytes_limit=1e4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"headroom": 1}, "got headroom=1"),
        ({"headroom": -0.1}, "got headroom=-0.1"),
        ({"multiple": 0}, "got multiple=0"),
        ({"multiple": 8, "largest": 4}, "got largest=4"),
        ({"bytes_limit": 0}, "got bytes_limit=0"),
        ({"bytes_limit": "all"}, "got bytes_limit='all'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(PaddingError, match=message):
        fit(new_step(), **options)


def test_random_plans_are_refused():
    plan = plan_shapes(LengthTable.measure(SAMPLES), max_shapes=2, grouping="random")
    with pytest.raises(PlanError, match="a random batch is drawn before its shape is known"):
        fit(new_step(), plan)
