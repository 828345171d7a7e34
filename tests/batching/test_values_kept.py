"""Between a source and a batch no value changes in silence: it is what it was, or an error names it."""

from array import array
from collections import deque
from importlib.util import find_spec

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import (
    BucketBatcher,
    Collator,
    Fixed,
    LengthTable,
    Packed,
    StreamBatcher,
    pack_samples,
    plan_packing,
)
from multimodal_pad import pad_samples as pad
from multimodal_pad.errors import SampleError
from tests.helpers.dtypes import ALL_DTYPES, HELD, example_array

LENGTHS = (3, 1, 0, 4)
TABLE = LengthTable(("audio",), np.array(LENGTHS)[:, None])
EIGHT = Fixed({"audio": 8})
PACKED = Packed(plan_packing(TABLE, batch_size=4, alignment=1))
PLACES = {
    "audio": lambda sample: sample["audio"],
    "targets": lambda sample: sample["targets"],
    "position_targets": lambda sample: sample["position_targets"]["audio"],
}


def bucketed(samples, policy=EIGHT, **options):
    return next(iter(BucketBatcher(samples, policy, lengths=TABLE, prefetch=0, **options)))


BATCHES = [
    pad,
    pack_samples,
    lambda samples: bucketed(samples, batch_size=5),
    lambda samples: bucketed(samples, PACKED),
    lambda samples: next(iter(StreamBatcher(iter(samples), EIGHT, batch_size=5, buffer=5))),
    Collator(EIGHT, batch_size=5),
]
"""All that makes batches of samples."""


def samples_with(place, values, width=()):
    """Four samples of unequal lengths, which hold these values in one place."""
    samples = []
    for length in LENGTHS:
        numbers = np.ones(length, np.float32)
        sample = {"audio": numbers, "targets": np.int32(length), "position_targets": {"audio": numbers}}
        if place == "targets":
            sample["targets"] = np.resize(values, width)
        elif place == "audio":
            sample["audio"] = np.resize(values, (length, *width))
        else:
            sample["position_targets"] = {"audio": np.resize(values, (length, *width))}
        samples.append(sample)
    return samples


def check_same(batch, samples, place):
    """Each sample has its values in the batch, bit for bit but for the byte order."""
    found = {len(sample["audio"]): np.asarray(PLACES[place](sample)) for sample in batch.layout.take_apart(batch)}
    assert sorted(found) == sorted(LENGTHS)
    for sample in samples:
        given, kept = np.asarray(PLACES[place](sample)), found[len(sample["audio"])]
        assert kept.dtype == given.dtype.newbyteorder("=")
        assert kept.shape == given.shape
        assert kept.tobytes() == given.astype(kept.dtype).tobytes()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_each_dtype_is_kept_or_refused(dtype, place):
    values = example_array(dtype, 7)
    for width in ((), (2,)):
        samples = samples_with(place, values, width)
        for make in BATCHES:
            if dtype.newbyteorder("=") in HELD:
                check_same(make(samples), samples, place)
            else:
                with pytest.raises(
                    SampleError, match=rf"sample \d, '{place}'.*: got .*dtype .* (a batch holds|give) bool"
                ):
                    make(samples)


CONTAINERS = {
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(x.tolist()),
    "list of arrays": list,
    "deque": deque,
    "jax": lambda x: jnp.asarray(x[..., :1] > 0, jnp.bfloat16),
    "reversed": lambda x: x[::-1].copy()[::-1],
    "fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=0)[::2],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "masked": lambda x: np.ma.array(x, mask=np.zeros(x.shape, bool)),
}
if find_spec("torch"):
    import torch

    CONTAINERS["torch"] = lambda x: torch.from_numpy(x.copy())
    CONTAINERS["list of torch"] = lambda x: [torch.tensor(row) for row in x]


@settings(max_examples=25)
@given(st.data())
def test_whatever_holds_the_values(data):
    place = data.draw(st.sampled_from(sorted(PLACES)))
    dtype = data.draw(st.sampled_from([np.dtype(name) for name in ("?", "u1", "i4", "i8", "f4", "f8")]))
    wrap = CONTAINERS[data.draw(st.sampled_from(sorted(CONTAINERS)))]
    plain = samples_with(place, example_array(dtype, 7), (2,))
    if wrap is CONTAINERS["list"] or wrap is CONTAINERS["tuple"]:
        plain = samples_with(place, example_array(dtype, 7)[[0, 3]], (2,))  # no value that Python would tell anew
    samples = []
    for sample in plain:
        value = PLACES[place](sample)
        samples.append({**sample, place: {"audio": wrap(value)} if place == "position_targets" else wrap(value)})
    make = data.draw(st.sampled_from(BATCHES))
    batch = make(samples)
    for sample in batch.layout.take_apart(batch):
        given = next(PLACES[place](s) for s in samples if len(s["audio"]) == len(sample["audio"]))
        if not len(sample["audio"]) and place != "targets":
            continue
        np.testing.assert_array_equal(PLACES[place](sample), np.asarray(given))


def test_arrays_of_the_standard_library():
    batch = pad([{"text": array("i", [3, 1]), "audio": memoryview(np.arange(3.0))}])
    assert batch.features["text"].tolist() == [[3, 1]]
    assert batch.features["audio"].tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("make", BATCHES)
@pytest.mark.parametrize("place", PLACES)
def test_masked_values_are_refused(make, place):
    samples = samples_with(place, np.array([1, 999, 3]), (2,))
    value = np.ma.masked_equal(PLACES[place](samples[0]), 999)
    samples[0][place] = {"audio": value} if place == "position_targets" else value
    with pytest.raises(SampleError, match=rf"sample 0, '{place}'.*: \d of \d values are masked.*x\.filled\(0\)"):
        make(samples)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda torch: torch.ones(3, 2, requires_grad=True), "requires grad"),
        (lambda torch: torch.ones(3, 2, dtype=torch.bfloat16), "BFloat16.*x.float"),
        (lambda torch: torch.ones(3, 2).to_sparse(), "Sparse"),
    ],
)
def test_tensors_that_numpy_cannot_read_are_named(make, message):
    tensor = make(pytest.importorskip("torch"))
    with pytest.raises(SampleError, match=f"sample 0, 'audio': NumPy can't read this Tensor.*{message}"):
        pad([{"audio": tensor}])
