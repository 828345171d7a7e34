"""Columns of labels: what is chosen is what NumPy's indexing gives, or an error that says what there is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.errors import PaddingError, SourceError
from multimodal_pad.sources.label_columns import ALL_COLUMNS, parse_label_columns, select_labels

NAMES = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
LABELS = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)


@given(
    columns=st.lists(st.integers(0, 6), min_size=1, max_size=7, unique=True),
    as_names=st.lists(st.booleans(), min_size=7, max_size=7),
    integer=st.sampled_from([int, np.int64, np.uint8]),
    axes=st.sampled_from([(5, 7), (5, 1, 7), (5, 7, 1)]),
)
def test_numbers_and_names_are_the_columns(columns, as_names, integer, axes):
    chosen = [NAMES[column] if named else integer(column) for column, named in zip(columns, as_names, strict=False)]
    labels = LABELS.reshape(axes)
    np.testing.assert_array_equal(select_labels(labels, chosen, "file", NAMES), LABELS[:, columns])
    np.testing.assert_array_equal(select_labels(labels, chosen[0], "file", NAMES), LABELS[:, columns[0]])


@given(start=st.integers(0, 6), count=st.integers(1, 7), kind=st.sampled_from([slice, range]))
def test_ranges_are_those_of_python_and_never_cut(start, count, kind):
    chosen = kind(start, start + count)
    if start + count <= 7:
        np.testing.assert_array_equal(select_labels(LABELS, chosen, "file"), LABELS[:, start : start + count])
        assert select_labels(LABELS, [0, kind(1, 3)], "file").shape == (5, 3)
    else:
        with pytest.raises(SourceError, match=r"file: has 7 columns of labels; got label_column=.*from 0 to 6"):
            select_labels(LABELS, chosen, "file")


def test_all_of_one_column_are_scalars():
    assert select_labels(LABELS, ALL_COLUMNS, "file").shape == (5, 7)
    for shape in ((5,), (5, 1), (5, 1, 1)):
        assert select_labels(LABELS[:, 0].reshape(shape), ALL_COLUMNS, "file").shape == (5,)
    assert select_labels(LABELS[:, :1], [0], "file").shape == (5, 1)
    assert select_labels(LABELS, None, "file") is None


@pytest.mark.parametrize(
    "chosen",
    [True, 1.0, [0, True], [1.0], {0: 1}, np.array([0, 1]), slice(0.0, 2), slice(0, 3, 0), [[0]], [None], b"a"],
)
def test_what_is_no_column(chosen):
    with pytest.raises(PaddingError, match=r"got label_column=.*; give a number from 0, a name, a range such as"):
        select_labels(LABELS, chosen, "file", NAMES)


@pytest.mark.parametrize("chosen", [[], [0, 0], [0, "sentiment"], [slice(0, 3), 2], slice(3, 3), range(0)])
def test_no_column_or_one_twice(chosen):
    with pytest.raises(PaddingError, match="name at least one, each once"):
        select_labels(LABELS, chosen, "file", NAMES)


@pytest.mark.parametrize("chosen", [7, -1, [0, 7], slice(5, 9), slice(-2, None), range(6, 8), [slice(0, 8)]])
def test_columns_that_are_not_there(chosen):
    with pytest.raises(SourceError, match=r"file: has 7 columns of labels; got label_column="):
        select_labels(LABELS, chosen, "file")


def test_names_that_are_not_there():
    with pytest.raises(SourceError, match=r"file: has no column of labels 'joy', only \['sentiment', 'happy'"):
        select_labels(LABELS, "joy", "file", NAMES)
    with pytest.raises(
        SourceError, match="no column of labels 'joy', and its columns no names; give numbers, from 0 to 6"
    ):
        select_labels(LABELS, ["joy"], "file")


@pytest.mark.parametrize("shape", [(5, 7, 2), (5, 0), ()])
def test_labels_that_are_no_columns(shape):
    with pytest.raises(SourceError, match="file: has "):
        select_labels(np.ones(shape), ALL_COLUMNS, "file")


@pytest.mark.parametrize(
    ("words", "chosen"),
    [
        (["3"], 3),
        (["fear"], "fear"),
        (["1:7"], slice(1, 7)),
        ([":"], ALL_COLUMNS),
        (["2:"], slice(2, None)),
        (["0", "1:3", "fear"], [0, slice(1, 3), "fear"]),
        (["1.0"], "1.0"),
        (["-1"], "-1"),
    ],
)
def test_words_of_a_command_line(words, chosen):
    assert parse_label_columns(words) == chosen
