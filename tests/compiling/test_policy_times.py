"""Which policy is fastest: made-up seconds of compiling and stepping, and a few real steps."""

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import (
    BucketBatcher,
    Exact,
    Fixed,
    LengthTable,
    Packed,
    PaddingError,
    Planned,
    plan_packing,
    plan_shapes,
)
from multimodal_pad.compiling import PolicyTime, PolicyTimes, StepTable, batch_struct, policy_times, time_policies

STATE = np.zeros((), np.float32)


def step(state, batch):
    return state + batch.features["text"].sum(), None


def batchers_of(lengths, names=("fixed", "planned", "packed"), max_shapes=4):
    samples = [{"text": np.ones(n, np.float32)} for n in lengths]
    table = LengthTable.measure(samples)
    make = {
        "fixed": lambda: Fixed.longest(table),
        "exact": lambda: Exact(table.modalities),
        "planned": lambda: Planned(plan_shapes(table, max_shapes=max_shapes, batch_size=8)),
        "packed": lambda: Packed(plan_packing(table, batch_size=8, alignment=1)),
    }
    groupings = {"fixed": "random", "exact": "random"}  # the others have their own
    return {name: BucketBatcher(samples, make[name](), batch_size=8, grouping=groupings.get(name)) for name in names}


VARIED = np.random.default_rng(0).permutation(np.repeat([4, 8, 20, 60], [40, 24, 8, 8]))


@pytest.fixture
def device(monkeypatch):
    """A position takes a millisecond, and one and a half in a packed batch; a program takes as long as a test says."""

    def set_compiling(compiling):
        def time_batches(table, batches, _state):
            factors = {"padded": 1e-3, "packed": 1.5e-3}
            assert all(listed[0].shape in table.steps for listed in batches)
            return np.array([factors[of[0].layout.name] * of[0].shape.positions for of in batches])

        def compile_shapes(table, spec, state, **_):
            for shape in spec.shapes:
                table.compile(state, batch_struct(spec.example, shape))
            return compiling

        monkeypatch.setattr(policy_times, "time_batches", time_batches)
        monkeypatch.setattr(policy_times, "compile_shapes", compile_shapes)

    return set_compiling


def test_packing_wins_where_lengths_vary_and_programs_are_dear(device):
    device(compiling=30.0)
    found = time_policies(step, batchers_of(VARIED), STATE, epochs=5)
    assert found.best == "packed"
    assert [time.shapes for time in found.times.values()] == [1, 4, 1]
    real = VARIED.sum()
    packed = found.times["packed"]
    assert 1.5e-3 * real <= packed.epoch_seconds < 1.6e-3 * real
    assert packed.seconds(5) == pytest.approx(30 + 5 * packed.epoch_seconds)


def test_a_long_run_pays_for_planned_shapes(device):
    """Their steps are the shortest, since packing a position takes longer here: some number of epochs pays for it."""
    device(compiling=30.0)
    batchers = batchers_of(VARIED)
    short = time_policies(step, batchers, STATE, epochs=5)
    assert short.times["planned"].epoch_seconds < short.times["packed"].epoch_seconds
    first = int(short.reason.split("ahead from ")[1].split(" epochs")[0].replace(",", ""))
    for epochs, best in ((first - 1, "packed"), (first + 1, "planned")):
        assert PolicyTimes(epochs, short.times).best == best
    assert f"packed: {short.times['packed'].seconds(5):.0f} s for 5 epochs; " in short.reason


def test_packing_says_that_it_is_slower_where_lengths_are_equal(device):
    device(compiling=1.0)
    found = time_policies(step, batchers_of([16] * 64), STATE, epochs=20)
    assert found.best == "fixed"
    assert found.times["packed"].seconds_per_sample == pytest.approx(1.5 * found.times["fixed"].seconds_per_sample)
    assert "(1.50 times as long per sample)" in found.reason
    assert "ahead from" not in found.reason
    assert found.reason in str(found)


def test_two_shapes_of_a_policy_are_compiled_and_the_steps_of_others_predicted(device):
    device(compiling=2.0)
    table = StepTable(step)
    batchers = batchers_of(VARIED, ("planned",))
    found = time_policies(table, batchers, STATE, epochs=1).times["planned"]
    assert [time.shape.lengths for time in found.measured] == [(("text", 60),), (("text", 4),)]
    assert len(table) == 2
    schedule = batchers["planned"].schedule(0)
    assert found.epoch_seconds == pytest.approx(1e-3 * (schedule.batch_sizes * schedule.lengths[:, 0]).sum())
    assert found.seconds(0) == 4 * 2.0
    everything = time_policies(table, batchers, STATE, epochs=1, most_shapes=9).times["planned"]
    assert everything.epoch_seconds == pytest.approx(found.epoch_seconds)
    assert len(table) == 4


def test_exact_padding_compiles_what_its_epochs_use(device):
    device(compiling=1.0)
    batchers = batchers_of(np.arange(1, 65), ("exact",))
    one, five = (time_policies(step, batchers, STATE, epochs=epochs).times["exact"].shapes for epochs in (1, 5))
    assert one == len(batchers["exact"].batch_shapes(1))
    assert five == len(batchers["exact"].batch_shapes(5)) > one


@pytest.mark.parametrize("donate_state", [False, True])
def test_steps_of_both_layouts_are_compiled_and_timed(donate_state):
    table = StepTable(lambda state, batch: step(state, batch), donate_state=donate_state)
    state = jnp.zeros(())
    found = time_policies(table, batchers_of(VARIED), state, epochs=2, repeats=2)
    assert {shape.layout.name for shape in table.steps} == {"padded", "packed"}
    assert not state.is_deleted(), "the steps ran on a copy"
    for time in found.times.values():
        assert time.samples == len(VARIED)
        assert min(time.compile_seconds, time.epoch_seconds) > 0
    assert found.best in found.times


def test_what_is_refused():
    batchers = batchers_of(VARIED, ("fixed",))
    for options, message in (
        ({"epochs": -1}, "got epochs=-1"),
        ({"repeats": 0}, "got repeats=0"),
        ({"most_shapes": 0}, "got most_shapes=0"),
    ):
        with pytest.raises(PaddingError, match=message):
            time_policies(step, batchers, STATE, **{"epochs": 1, **options})
    with pytest.raises(PaddingError, match="got no batchers; give one for each policy"):
        time_policies(step, {}, STATE, epochs=1)
    with pytest.raises(PaddingError, match=r"a share of each batch, \['half'\]"):
        time_policies(step, {"half": batchers["fixed"].shard(0, 2)}, STATE, epochs=1)
    fewer = batchers_of(VARIED[:9], ("packed",))
    with pytest.raises(PaddingError, match=r"other numbers of samples, \{'fixed': 80, 'packed': 9\}"):
        time_policies(step, {**batchers, **fewer}, STATE, epochs=1)
    with pytest.raises(PaddingError, match="give one that returns"):
        time_policies(lambda state, _: {"loss": state}, batchers, STATE, epochs=1)


def test_of_equal_totals_the_first_is_best():
    times = {name: PolicyTime(10, 1, 1.0, 1.0) for name in ("one", "other")}
    assert PolicyTimes(3, times).best == "one"
