"""Outputs are the model's own for each sample alone, in order, whatever they were computed with."""

import copy

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import (
    BucketBatcher,
    Exact,
    Fixed,
    Ladder,
    PaddingError,
    Planned,
    plan_shapes,
)
from multimodal_pad.compiling import CompileLog, forbid_compiles
from multimodal_pad.errors import SampleError, TrainingError, UncoveredLengthError
from multimodal_pad.serving import PredictionStats, Predictor
from multimodal_pad.serving.predictor import AHEAD
from tests.helpers.serving import PLANS, TABLE, Tagger, alone, make_requests, predictor, worst
from tests.helpers.training import MeanModel, make_samples

FIXED = Fixed({"text": 8, "audio": 19})


@pytest.mark.slow
@pytest.mark.parametrize("plan", PLANS)
def test_500_random_samples_in_random_chunks(plan):
    """Lists and iterators by turns; after the warm-up nothing compiles."""
    samples, found = make_requests(500, seed=1), []
    predict, rng = predictor(plan), np.random.default_rng(2)
    with CompileLog() as log, forbid_compiles():
        while len(found) < len(samples):
            chunk = samples[len(found) :][: int(rng.integers(1, 200))]
            found += predict(chunk) if rng.integers(2) else list(predict(iter(chunk)))
    assert log.total.backend_compiles == 0
    assert worst(found, alone(samples)) < 1e-5


@pytest.mark.parametrize("layout", ["padded", "packed"])
def test_an_own_module_compiles_at_the_first_sample_and_then_no_more(layout):
    samples, model = make_samples(60), MeanModel()
    policy = Ladder({"audio": [4, 12]}) if layout == "padded" else PLANS["packed"]()
    if layout == "packed":
        samples = [{**sample, "text": []} for sample in samples]
    predict = Predictor(model, policy, batch_size=8 if layout == "padded" else None)
    first = predict({**samples[0], "text": np.int32([])})
    with forbid_compiles():
        found = predict(samples)
    kernel, bias = model.head.kernel[...], model.head.bias[...]
    wanted = [np.asarray(sample["audio"].mean(axis=0) @ kernel + bias) for sample in samples]
    assert worst([first, *found], [wanted[0], *wanted]) < 1e-5


def test_one_a_list_a_source_or_an_iterator():
    samples, predict = make_requests(9, seed=3), predictor()
    one, several = predict(samples[4]), predict(samples)
    assert isinstance(one, np.ndarray)
    assert one.shape == (2,)
    assert isinstance(several, list)
    np.testing.assert_allclose(one, several[4], atol=1e-6)
    assert predict([]) == []

    class Source:
        def __len__(self):
            return 3

        def __getitem__(self, index):
            return samples[index]

    assert worst(predict(Source()), several[:3]) < 1e-6
    assert worst(list(predict(iter(tuple(samples)))), several) < 1e-6
    several[0][:] = 0  # outputs are the caller's own


def test_an_iterator_is_read_as_far_as_it_is_asked_for():
    read = []

    def endless():
        while True:
            read.append(1)
            yield make_requests(1)[0]

    outputs = predictor()(endless())
    assert not read
    for number in range(1, 3 * AHEAD * 8):
        next(outputs)
        assert len(read) <= number + AHEAD * 8 + 16 + 8  # those of batches on the way, and of one to be filled
    outputs.close()


def test_a_rare_shape_holds_up_no_more_than_twice_as_many():
    """One long sample, and then short ones without an end."""
    short, long = ({name: x[:n] for name, x in LONG.items()} for n in (1, 8))
    read = []

    def samples():
        yield long
        while True:
            read.append(1)
            yield short

    predict = Predictor(MeanModel(), Ladder({"audio": [1, 8]}), batch_size=2)
    outputs = predict(samples())
    first = next(outputs)
    assert len(read) <= 2 * AHEAD * 2 + 2
    assert worst([first, next(outputs)], [predict(long), predict(short)]) < 1e-6
    assert predict.stats.efficiency > 0.8


def test_the_sample_that_is_wrong_is_named_by_its_number():
    samples = make_requests(300, seed=4)
    samples[260] = {**samples[260], "audio": np.full((2, 3), np.nan)}
    with pytest.raises(SampleError, match="sample 260, 'audio': position 0 holds NaN or inf"):
        predictor()(samples)


def test_outputs_per_position_are_cut_to_the_sample():
    samples, model = make_requests(30, seed=5), Tagger()
    for plan in ("padded", "packed"):
        predict = Predictor(model, PLANS[plan](), positions={"tags": "audio"})
        for sample, output in zip(samples, predict(samples), strict=True):
            np.testing.assert_allclose(output["tags"], model.tags(sample["audio"]), atol=1e-5)
            assert output["count"] == len(sample["text"])


class Tags(Tagger):
    def __call__(self, batch):
        return super().__call__(batch)["tags"]


LONG = {"text": np.arange(11, dtype=np.int32) % 5, "audio": np.random.default_rng(0).standard_normal((45, 3), "f4")}


def test_windows_of_outputs_per_position_lie_end_to_end():
    model = Tags()
    predict = Predictor(model, FIXED, batch_size=4, positions="audio", long_samples="window")
    output = predict(LONG)
    np.testing.assert_allclose(output, model.tags(LONG["audio"]), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("plan", ["padded", "packed"])
def test_long_samples_are_an_error_truncated_or_windowed(plan):
    times = {"padded": 1, "packed": 6}[plan]  # whose limit is the capacity
    long = {name: np.concatenate([x] * times) for name, x in LONG.items()}
    samples = make_requests(10, seed=6)
    samples[3] = long
    with pytest.raises(UncoveredLengthError, match=r"sample 3: .* has .* positions and .*plan for longer samples"):
        predictor(plan)(samples)
    policy = predictor(plan).policy
    lengths = np.array([[len(long[name]) for name in policy.modalities]])
    limits = dict(zip(policy.modalities, policy.truncate(lengths)[0].tolist(), strict=True))
    longest = {name: max(limits[name], n) for name, n in zip(("text", "audio"), (8, 19), strict=True)}

    cut = predictor(plan, long_samples="truncate")
    before = cut.stats.truncated
    wanted = alone([{name: x[: limits[name]] for name, x in long.items()}], longest)
    assert worst(cut(samples)[3:4], wanted) < 1e-5
    assert cut.stats.truncated == before + 1

    windowed = predictor(plan, long_samples="window")
    before = windowed.stats.windowed, windowed.stats.windows
    count = max(-(-len(x) // limits[name]) for name, x in long.items())
    edges = {name: [len(x) * i // count for i in range(count + 1)] for name, x in long.items()}
    windows = [{n: x[edges[n][i] : edges[n][i + 1]] for n, x in long.items()} for i in range(count)]
    weights = [len(window["text"]) + len(window["audio"]) for window in windows]
    wanted = np.average(alone(windows, longest), axis=0, weights=weights)
    found = windowed(samples)
    assert worst(found[3:4], [wanted]) < 1e-5
    assert worst(found[4:], alone(samples[4:])) < 1e-5
    assert (windowed.stats.windowed, windowed.stats.windows) == (before[0] + 1, before[1] + count)
    assert "in windows: " in str(windowed.stats)


def test_few_samples_take_smaller_shapes():
    predict = Predictor(MeanModel(), PLANS["padded"](), smaller=(4, 8))
    samples = make_requests(17, seed=7)
    several = predict(samples)
    assert sorted(shape.batch_size for shape in predict.shapes) == [1, 1, 2, 2, 8, 8]
    before = predict.stats.shapes.copy()
    assert worst([predict(samples[2])], several[2:3]) < 1e-6
    [(shape, _)] = (predict.stats.shapes - before).items()
    assert shape.batch_size == 1


@pytest.mark.slow
def test_what_overflows_in_a_packed_batch_stays_with_its_sample():
    """Finite, and yet NaN in the model, where a product with 0 spreads it."""
    predict, samples = predictor("packed"), make_requests(8, seed=8)
    samples[2] = {**samples[2], "audio": np.full((4, 3), 3e38, np.float32)}
    before = predict.stats.repeated
    found = predict(samples)
    assert np.isnan(found[2]).all()
    assert predict.stats.repeated == before + 8
    others = [*range(2), *range(3, 8)]
    assert worst([found[i] for i in others], alone([samples[i] for i in others])) < 1e-5


def test_a_batcher_or_a_batch_is_an_example_too():
    plan = plan_shapes(TABLE, max_shapes=1, batch_size=4)
    requests = [{**sample, "targets": np.int32(0)} for sample in make_requests(12)]
    batcher = BucketBatcher(requests, Planned(plan))
    for example in (batcher, next(batcher.epoch(0))):
        predict = Predictor(MeanModel(), plan, example=example)
        assert {name: kind.feature_shape for name, kind in predict.inputs.items()} == {"text": (), "audio": (3,)}
        with forbid_compiles():
            assert len(predict(requests)) == 12
    assert repr(predict).startswith("Predictor(Planned(1 shape, ")


class NoAxis(nnx.Module):
    def __init__(self):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, batch):
        return {"mean": self.scale * batch.features["audio"].mean(), "ids": jnp.asarray(batch.lengths["text"])}


class Counts(NoAxis):
    def __call__(self, batch):
        return super().__call__(batch)["ids"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": object()}, "got a builtins.object for the model; give a flax.nnx.Module"),
        ({"plan": [8]}, "got list for the policy; give a policy"),
        ({"plan": Exact(["text"])}, "has infinitely many shapes"),
        ({"plan": Ladder({"text": range(1, 30), "audio": range(1, 30)})}, r"which has 841 shapes, each a program"),
        ({"batch_size": None}, "got no batch_size"),
        ({"long_samples": "drop"}, r"got long_samples='drop'; choose one of \['error', 'truncate', 'window'\]"),
        ({"positions": "visual"}, r"positions of \['visual'\]; the modalities are \['text', 'audio'\]"),
        ({"smaller": (3,)}, r"got smaller=3, which doesn't divide 4 x \(audio 19, text 8\)"),
        ({"smaller": (1,)}, "got smaller=1; it must be a whole number, at least 2"),
    ],
)
def test_what_makes_no_predictor_is_told(options, message):
    given = {"model": MeanModel(), "plan": FIXED, "batch_size": 4, **options}
    with pytest.raises(PaddingError, match=message):
        Predictor(given.pop("model"), given.pop("plan"), **given)


def test_outputs_that_are_none_are_told():
    sample = make_requests(1)[0]
    with pytest.raises(PaddingError, match=r"output\['mean'\] has shape \(\) for a batch of 4; give it the samples"):
        Predictor(NoAxis(), FIXED, batch_size=4)(sample)
    with pytest.raises(PaddingError, match=r"output\['ids'\] has shape \(4,\), and positions of 'audio' have \(4, 19"):
        Predictor(NoAxis(), FIXED, batch_size=4, positions={"ids": "audio"})([sample])
    with pytest.raises(PaddingError, match=r"got positions for the outputs \['tags'\]; there are none"):
        Predictor(NoAxis(), FIXED, batch_size=4, positions={"tags": "audio"})(sample)
    with pytest.raises(PaddingError, match="outputs of dtype int32 of a sample in 3 windows, and their mean makes no"):
        Predictor(Counts(), FIXED, batch_size=4, long_samples="window")(LONG)
    with pytest.raises(PaddingError, match="got no sample yet"):
        _ = Predictor(MeanModel(), FIXED, batch_size=4).inputs
    with pytest.raises(TrainingError, match="without parameters"):
        Predictor(nnx.Dropout(0.5), FIXED, batch_size=4)


def test_the_model_is_read_and_not_changed():
    trained = MeanModel()
    kernel = trained.head.kernel[...].copy()
    Predictor(trained, FIXED, batch_size=4)(make_requests(3))
    np.testing.assert_array_equal(trained.head.kernel[...], kernel)


FIRST = {
    "a small dtype": {"text": np.uint8([3])},
    "floats for ids": {"text": [1.0, 2.0]},
    "nothing there": {"text": [], "audio": []},
    "whole features": {"audio": np.ones((2, 3), int)},
    "another width": {"audio": np.ones((2, 4), "f4")},
    "an id beyond": {"text": [11]},
}


@pytest.mark.parametrize("first", FIRST)
def test_the_first_request_decides_nothing_that_the_model_says(first):
    """It is answered or fails alone; those after it are as ever."""
    request = {"text": [3], "audio": np.ones((2, 3), "f4"), **FIRST[first]}
    compiled = predictor("padded")
    other = copy.copy(compiled)
    other._inputs, other.stats = None, PredictionStats()
    if first in ("floats for ids", "another width", "an id beyond"):
        with pytest.raises(SampleError, match=r"sample 0, '(text|audio)'"):
            other(request)
    else:
        np.testing.assert_allclose(other(request), compiled(request), atol=1e-6)
    wide = {"text": np.int64([10, 0]), "audio": np.full((2, 3), 0.5)}
    np.testing.assert_allclose(other(wide), compiled(wide), atol=1e-6)
