"""Targets of positions lie as their modality does, in either layout, and dicts of targets are taken leaf by leaf."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from multimodal_pad import BatchShape, LengthTable, pack_samples, pad_samples, unpack, unpad
from multimodal_pad.compiling.table import batch_struct
from multimodal_pad.errors import SampleError
from multimodal_pad.layouts.packed import PACKED
from multimodal_pad.lengths.trees import leaves_of, named_leaves
from tests.helpers.batches import assert_same_samples
from tests.strategies import length_tables, make_samples, with_all_targets

LAYOUTS = {"padded": (pad_samples, unpad), "packed": (pack_samples, unpack)}


def assert_lie_as_their_modality(batch):
    """Each target equals what is at its position, where the padding is 0 too."""
    for name, features in batch.features.items():
        tree = batch.position_targets[name]
        np.testing.assert_array_equal(tree if name == "text" else tree["same"], features)
        if name != "text":
            np.testing.assert_array_equal(tree["up"]["bool"], features > 0)
    for leaf in (*leaves_of(batch.targets), *leaves_of(batch.position_targets)):
        assert leaf.ctypes.data % 64 == 0
        assert leaf.flags.c_contiguous


@settings(max_examples=25)
@given(st.sampled_from(sorted(LAYOUTS)), length_tables(max_samples=8), st.integers(0, 3), st.integers(0, 4))
def test_there_and_back(layout, table, empty, more):
    lay_out, take_apart = LAYOUTS[layout]
    samples = with_all_targets(make_samples(table))
    size = table.values.max(axis=0) if layout == "padded" else table.values.sum(axis=0)
    room = {name: max(1, int(n)) + more for name, n in zip(table.modalities, size, strict=True)}
    batch = lay_out(samples, batch_size=len(samples) + empty, **{"pad_to" if layout == "padded" else "capacity": room})
    assert_lie_as_their_modality(batch)
    assert_same_samples(take_apart(batch), samples)
    assert batch.targets["number"].tolist() == [*range(len(samples)), *[0] * empty]
    assert batch.nbytes == sum(x.nbytes for x in leaves_of(batch._asdict()))


def test_padding_of_targets_is_zero_whatever_that_of_features_is():
    samples = [{"text": np.arange(n), "position_targets": {"text": np.ones(n)}} for n in (1, 3)]
    assert pad_samples(samples, pad_value=9).position_targets["text"].tolist() == [[1, 0, 0], [1, 1, 1]]
    assert pack_samples(samples, pad_value=9, capacity={"text": 5}).position_targets["text"].tolist() == [1, 1, 1, 1, 0]


@settings(max_examples=25)
@given(length_tables(max_samples=12), st.sampled_from([2, 3]), st.integers(0, 3), st.randoms(use_true_random=False))
def test_shares_have_theirs(table, shares, more, random):
    samples = with_all_targets(make_samples(table))
    ends = sorted(random.randint(0, len(samples)) for _ in range(shares - 1))
    sizes = np.diff([0, *ends, len(samples)]).tolist()
    parts = np.split(np.arange(len(samples)), ends)
    room = {m: more + max(1, *(sum(len(samples[i][m]) for i in part) for part in parts)) for m in table.modalities}
    shape = PACKED.joined(BatchShape.of(max(sizes) + more, room, PACKED), shares)
    arrays = {m: [sample[m] for sample in samples] for m in table.modalities}
    options = {"numbers": range(len(samples)), "pad_value": 0, "check_finite": False, "with_ids": True}
    batch = PACKED.lay_out(arrays, samples, shape, **options, share_sizes=sizes)
    assert_lie_as_their_modality(batch)
    assert_same_samples(unpack(batch), samples)
    np.testing.assert_array_equal(batch.targets["number"], np.where(batch.sample_mask, batch.ids, 0))
    np.testing.assert_array_equal(batch.targets["scores"]["pair"][:, 0], batch.targets["number"])


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shapes_to_compile_for_have_them(layout):
    table = LengthTable(("text", "audio"), np.array([[2, 3], [0, 5], [4, 0]]))
    samples = with_all_targets(make_samples(table))
    batch = LAYOUTS[layout][0](samples)
    shape = BatchShape.of(7, {"text": 20, "audio": 40}, batch.layout)
    struct = batch_struct(batch, shape)
    assert struct.shape == shape
    front = (7, 40) if layout == "padded" else (40,)
    assert struct.position_targets["audio"]["same"].shape == (*front, 3)
    assert struct.targets["scores"]["pair"].shape == (7, 2)
    found = {where: x.dtype for where, x in named_leaves(struct._asdict(), "").items()}
    assert found == {where: x.dtype for where, x in named_leaves(batch._asdict(), "").items()}


GOOD = {"text": np.arange(3), "targets": {"a": 1, "b": {"c": 2.0}}, "position_targets": {"text": {"x": np.zeros(3)}}}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"position_targets": {"text": {"x": np.zeros(2)}}}, r"sample 1, 'position_targets'\['text'\]\['x'\]: got "
         r"shape \(2,\), and 'text' has 3 positions; give one target for each"),
        ({"position_targets": {"text": {"x": 4}}}, r"got shape \(\), and 'text' has 3 positions"),
        ({"position_targets": {"video": np.zeros(3)}}, r"got targets for the positions of \['video'\], and the mo"),
        ({"position_targets": np.zeros(3)}, r"'position_targets': got ndarray; give \{modality: array"),
        ({"position_targets": {}}, r"'position_targets': got a dict with the keys \[\]; give at least one"),
        ({"position_targets": {"text": np.zeros(3)}}, r"\['text'\]: has no keys, but sample 0 has \['x'\]; give all"),
        ({"position_targets": {"text": {"x": np.zeros((3, 2))}}}, r"got shape \(2,\) and dtype float64, but sample 0"),
        ({"position_targets": {"text": {"x": np.zeros(3, bool)}}}, r"got shape \(\) and dtype bool, but sample 0 has"),
        ({"position_targets": {"text": {"x": [[1], [1, 2], [0]]}}}, r"'\]\['x'\]: not an array of one shape"),
        ({"targets": {"a": 1}}, r"sample 1, 'targets': has the keys \['a'\], but sample 0 has \['a', 'b'\]; give all"),
        ({"targets": {"a": 1, "b": {"c": 2}}}, r"sample 1, 'targets'\['b'\]\['c'\]: got shape \(\) and dtype int64"),
        ({"targets": {"a": object(), "b": {"c": 2.0}}}, r"'targets'\['a'\]: got object; give bool, whole"),
        ({"targets": 3}, r"sample 1, 'targets': has no keys, but sample 0 has \['a', 'b'\]"),
    ],
)  # fmt: skip
def test_bad_targets_are_named(layout, changes, message):
    with pytest.raises(SampleError, match=message):
        LAYOUTS[layout][0]([GOOD, {**GOOD, **changes}])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", ["targets", "position_targets"])
def test_targets_in_some_samples(layout, key):
    without = {name: value for name, value in GOOD.items() if name != key}
    for samples, number in (([GOOD, without], 1), ([without, GOOD], 0)):
        with pytest.raises(SampleError, match=f"sample {number} has no '{key}' and others have"):
            LAYOUTS[layout][0](samples)


def test_keys_are_strings():
    with pytest.raises(
        SampleError, match=r"sample 0, 'targets': got a dict with the keys \[3\]; give at least one, and"
    ):
        pad_samples([{"text": [1], "targets": {3: 1}}])
