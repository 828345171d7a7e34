"""Samples that are no dicts: fields by their names, tuples with names given; and what is no sample at all."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import attrs
import grain
import numpy as np
import pandas
import pytest

from multimodal_pad import (
    BucketBatcher,
    Collator,
    Fixed,
    LengthTable,
    StreamBatcher,
    batches,
    named_samples,
    pack_samples,
    pad_samples,
    plan_shapes,
)
from multimodal_pad.errors import LengthError, PaddingError, SampleError
from multimodal_pad.grain import StreamIterDataset

EIGHT = Fixed({"text": 8})


@dataclass
class AsDataclass:
    text: Any
    targets: Any = None
    position_targets: Any = field(default=None)


@dataclass(frozen=True, slots=True)
class AsSlots:
    text: Any
    targets: Any = None


class AsTuple(NamedTuple):
    text: Any
    targets: Any = None


@attrs.frozen
class AsAttrs:
    text: Any
    targets: Any = None


def as_namespace(text, targets):
    return SimpleNamespace(text=text, targets=targets)


KINDS = [AsDataclass, AsSlots, AsTuple, AsAttrs, as_namespace]


@pytest.mark.parametrize("kind", KINDS)
def test_fields_are_what_keys_are(kind):
    samples = [kind([1, 2, 3], 7), kind(None, 8)]
    made = [
        pad_samples(samples),
        pack_samples(samples),
        Collator(EIGHT, batch_size=3)(samples),
        next(iter(BucketBatcher(samples, EIGHT, batch_size=3))),
        next(iter(StreamBatcher(samples, EIGHT, batch_size=3))),
        next(iter(StreamBatcher.planned(samples, batch_size=3, max_shapes=1))),
        next(iter(batches(samples, batch_size=3, max_shapes=1))),
        next(iter(StreamIterDataset(grain.MapDataset.source(samples).to_iter_dataset(), EIGHT, batch_size=3))),
    ]
    for batch in made:
        found = {int(s["targets"]): s["text"].tolist() for s in batch.layout.take_apart(batch)}
        assert found == {7: [1, 2, 3], 8: []}
    assert LengthTable.measure(samples, ["text"]).values.tolist() == [[3], [0]]


@pytest.mark.parametrize("samples", [[([1, 2], 5, "id"), ([3], 6, "id")], [[[1, 2], 5, "id"], [[3], 6, "id"]]])
def test_tuples_with_names(samples):
    names = ("text", "targets", None)
    source = named_samples(samples, names)
    assert len(source) == 2
    for batcher in (BucketBatcher(source, EIGHT, batch_size=2), StreamBatcher(iter(source), EIGHT, batch_size=2)):
        batch = next(iter(batcher))
        assert sorted(batch.targets.tolist()) == [5, 6]
    stream = StreamBatcher(named_samples((s for s in samples), names), EIGHT, batch_size=2)
    assert sum(int(batch.sample_mask.sum()) for batch in stream) == 2
    with pytest.raises(PaddingError, match="the samples are an iterator, and a loop before has used it"):
        list(stream)


def test_an_iterable_with_names_begins_anew():
    class Stream:
        def __iter__(self):
            yield from [([1, 2], 5), ([3], 6)]

    stream = StreamBatcher(named_samples(Stream(), ("text", "targets")), EIGHT, batch_size=2)
    for _ in range(2):
        assert sum(int(batch.sample_mask.sum()) for batch in stream) == 2


def test_the_lengths_of_a_source_stay_known():
    class Source(list):
        lengths = LengthTable(("text",), np.array([[2]]))

    assert LengthTable.measure(named_samples(Source([()]), ("text",))).values.tolist() == [[2]]


@pytest.mark.parametrize("names", ["text", (), ("text", "text"), ("text", 3), (None,), ("text", ("text",))])
def test_names_that_are_none(names):
    with pytest.raises(SampleError, match="give a name for each part of a sample"):
        named_samples([([1],)], names)


@pytest.mark.parametrize("sample", [([1],), ([1], 2, 3), {"text": [1]}, None])
def test_samples_with_other_parts_are_named(sample):
    source = named_samples([([1], 2), sample], ("text", "targets"))
    with pytest.raises(SampleError, match=r"sample 1: got .* for the names \['text', 'targets'\]; give a tuple"):
        LengthTable.measure(source)


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (([1], 2), r"sample 1 is no mapping but tuple; name its parts \(2\), such as named_samples\(samples"),
        (None, "sample 1 is no mapping but NoneType; leave such samples out before .Grain's filter"),
        (AsDataclass, "sample 1 is no mapping but type; a sample is"),
        (3, "sample 1 is no mapping but int; a sample is"),
    ],
)
def test_what_is_no_sample(sample, message):
    samples = [{"text": [1]}, sample]
    with pytest.raises(SampleError, match=message):
        pad_samples(samples)
    with pytest.raises(SampleError, match=message):
        BucketBatcher(samples, EIGHT, batch_size=2)
    with pytest.raises(SampleError, match=message.replace("sample 1", "sample 1 of the stream")):
        list(StreamBatcher(samples, EIGHT, batch_size=2))


def test_modality_names_are_strings():
    with pytest.raises(LengthError, match="a name is a string"):
        LengthTable.measure([{1: [1]}])


GRAIN = grain.MapDataset.source([{"text": np.arange(n)} for n in (3, 5)])


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ((s for s in [{"text": [1]}]), "type generator; give something with len.* or take StreamBatcher"),
        ({"text": [[1]]}, "type dict; give a sequence of samples"),
        (pandas.DataFrame({"text": [1]}), "type DataFrame; give a sequence of samples"),
        ({1, 2}, "type set; give something with len"),
        (GRAIN.repeat(), "RepeatMapDataset, of which there are 9,223,372,036,854,775,807.*leave .repeat"),
        ([], "got no samples"),
    ],
)
def test_containers_that_are_no_source(samples, message):
    for make in (lambda: BucketBatcher(samples, EIGHT, batch_size=2), lambda: batches(samples)):
        with pytest.raises(LengthError, match=message):
            make()
    if isinstance(samples, dict | list):
        return
    with pytest.raises(LengthError, match=message):
        BucketBatcher(samples, EIGHT, batch_size=2, lengths={"text": [1]})


def test_grain_datasets_that_stand_for_fewer_samples():
    filtered = GRAIN.filter(lambda sample: len(sample["text"]) > 3)
    with pytest.raises(SampleError, match="sample 0 is no mapping but NoneType; leave such samples out before"):
        BucketBatcher(filtered, EIGHT, batch_size=2)
    stream = StreamIterDataset(filtered.to_iter_dataset(), EIGHT, batch_size=2)
    assert [int(batch.sample_mask.sum()) for batch in stream] == [1]
    assert len(BucketBatcher(GRAIN.repeat(2), EIGHT, batch_size=2)) == 2


def test_grain_streams_are_of_iter_datasets():
    sampler = grain.samplers.SequentialSampler(2, shard_options=grain.sharding.NoSharding())
    loader = grain.DataLoader(data_source=[{"text": [1]}] * 2, sampler=sampler)
    with pytest.raises(PaddingError, match=r"type DataLoader, which is no grain.IterDataset; take StreamBatcher"):
        StreamIterDataset(loader, EIGHT, batch_size=2)
    with pytest.raises(PaddingError, match=r"SourceMapDataset, .*; take .to_iter_dataset\(\) of it"):
        StreamIterDataset(GRAIN, EIGHT, batch_size=2)
    assert sum(int(batch.sample_mask.sum()) for batch in StreamBatcher(loader, EIGHT, batch_size=2)) == 2


@pytest.mark.parametrize(
    "lengths", [[3, 5], [[3], [5]], [(3,), (5,)], np.array([3, 5]), np.array([[3], [5]]), [{"text": 3}, {"text": 5}]]
)
def test_lengths_without_names_are_told_how_to_be_written(lengths):
    with pytest.raises(LengthError, match=r'of numbers for the lengths.*\{"text": \[3, 5\], "audio": \[40, 80\]\}'):
        plan_shapes(lengths)
    with pytest.raises(LengthError, match="of numbers for the lengths"):
        BucketBatcher([{"text": [1]}] * 2, EIGHT, batch_size=2, lengths=lengths)


@pytest.mark.parametrize("column", [3, [[3, 4], [1]], {"a": 3}, np.ma.array([3, 5], mask=[0, 1])])
def test_columns_of_something_else(column):
    with pytest.raises(LengthError, match="the column of 'text'"):
        LengthTable.from_columns({"text": column})


def test_lengths_of_any_dtype():
    for dtype in ("f2", "f4", ">f8", ">i2", "u1", "u8"):
        assert LengthTable.from_columns({"text": np.array([3, 200], dtype)}).values.tolist() == [[3], [200]]


@pytest.mark.parametrize("value", [None, "x", 1j, [0, 0], np.zeros(2), {"text": None}])
def test_pad_values_are_numbers(value):
    for make in (
        lambda: pad_samples([{"text": [1]}], pad_value=value),
        lambda: BucketBatcher([{"text": [1]}], EIGHT, batch_size=2, pad_value=value),
        lambda: StreamBatcher([{"text": [1]}], EIGHT, batch_size=2, pad_value=value),
        lambda: Collator(EIGHT, pad_value=value),
    ):
        with pytest.raises(SampleError, match=r"got pad_value.*; give a number"):
            make()


def test_pad_values_of_arrays_without_axes():
    for value in (np.int64(2), np.array(2), 2):
        assert pad_samples([{"text": [1]}], pad_to={"text": 2}, pad_value=value).features["text"].tolist() == [[1, 2]]
