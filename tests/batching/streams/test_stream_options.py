from dataclasses import fields

import pytest

from multimodal_pad.batching.streams.options import StreamKeywords, StreamOptions
from multimodal_pad.lengths.cost import attention_area, position_count
from tests.helpers.streams import EIGHT, texts


def test_the_keywords_are_the_options_beside_the_policy():
    options = {field.name: field.type for field in fields(StreamOptions) if field.name != "policy"}
    keywords = {name: hint.__forward_arg__ for name, hint in StreamKeywords.__annotations__.items()}
    assert keywords == options


def test_an_option_that_there_is_not():
    with pytest.raises(TypeError, match="'bufer'"):
        StreamOptions(EIGHT, batch_size=2, bufer=9)


def test_what_is_made_of_the_options_has_them():
    options = StreamOptions(
        EIGHT,
        batch_size=2,
        buffer=3,
        seed=5,
        long_samples="drop",
        pad_value=-1,
        cost=attention_area,
        with_ids=True,
    )
    buffer = options.new_buffer(epoch=6, batch=7)
    assert (buffer.capacity, buffer.batch_size, buffer.seed, buffer.epoch, buffer.batch) == (3, 2, 5, 6, 7)
    assert buffer.cost is options.sample_cost is attention_area
    assert StreamOptions(EIGHT, batch_size=2).sample_cost is position_count
    intake = options.new_intake()
    _, lengths, waiting = intake.admit(enumerate(texts([3, 9, 4])))
    assert intake.dropped == 1
    buffer.add(lengths, [0, 1], waiting)
    buffer.finish()
    batch = options.lay_out(buffer.take(), intake)
    assert batch.lengths["text"].tolist() == [3, 4]
    assert batch.features["text"][0].tolist() == [0, 1, 2, -1, -1, -1, -1, -1]
    assert batch.ids.tolist() == [0, 2], "numbers in the stream"
    assert batch.targets is not None
    assert batch.targets.tolist() == [0, 2]
