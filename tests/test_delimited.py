"""Tables of text: whatever separates, quotes and encodes them, the same rows are read, or a line is named."""

import csv
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.delimited import SEPARATORS, DelimitedFile
from multimodal_pad.errors import SourceError

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters='\n"'), max_size=8)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.csv"


def written(path, columns, rows, separator=",", encoding="utf-8", hint=False, **options):
    text = io.StringIO()
    csv.writer(text, delimiter=separator, **options).writerows([columns, *rows])
    path.write_bytes(((f"sep={separator}\n" if hint else "") + text.getvalue()).encode(encoding))
    return path


@given(
    rows=st.lists(st.tuples(WORDS, st.integers(-(10**9), 10**9), st.floats(allow_nan=False, width=32)), max_size=5),
    separator=st.sampled_from(SEPARATORS),
    encoding=st.sampled_from(ENCODINGS),
    hint=st.booleans(),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    ending=st.sampled_from(["\n", "\r\n", "\r"]),
)
def test_how_a_table_is_written_changes_nothing(path, rows, separator, encoding, hint, quoting, ending):
    columns = ["text", "whole", "score"]
    written(path, columns, rows, separator, encoding, hint, quoting=quoting, lineterminator=ending)
    table = DelimitedFile(path, required=["score"])
    assert (table.columns, table.separator) == (tuple(columns), separator)
    found = list(table.rows())
    assert [(row.values["text"], int(row.values["whole"]), float(row.values["score"])) for row in found] == rows
    np.testing.assert_array_equal(
        table.numbers(["score", "whole"]), [(score, whole) for _, whole, score in rows] or np.zeros((0, 2))
    )
    assert [row.line for row in found] == sorted({row.line for row in found})


def test_columns_that_are_required_decide_the_separator(path):
    path.write_text("said, and by whom, where, when;id\nhello, she said;7\n")
    assert DelimitedFile(path, required=["id"]).separator == ";"
    assert DelimitedFile(path, required=["id"]).numbers(["id"]).tolist() == [[7]]


def test_a_single_column_needs_no_separator(path):
    path.write_text("text\n3\n\n4\n")
    assert DelimitedFile(path).numbers(["text"]).tolist() == [[3], [4]]
    assert [row.line for row in DelimitedFile(path).rows()] == [2, 4]


def read(path):
    table = DelimitedFile(path, required=["a"])
    return list(table.rows()), table.numbers(["a"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"table\.csv, line 1: the first line must name the columns, each once; got \[\]"),
        (b"a,a\n1,2\n", r"the columns, each once; got \['a', 'a'\]"),
        (b"b,c\n1,2\n", r"line 1: has no column \['a'\], only \['b', 'c'\] \(separated by ','\)"),
        (b"sep=;\nb,c\n", r"line 2: has no column \['a'\], only \['b,c'\] \(separated by ';'\)"),
        (b"a,b\n1,2\n1,2,3\n", r"line 3: got 3 values for the 2 columns \['a', 'b'\]; mend or remove the row"),
        (b'a,b\n"x\ny",2\n1\n', "line 4: got 1 values"),
        (b"sep=,\na,b\n1\n", "line 3: got 1 values"),
        (b'a,b\n1,2\n"open,3\n', "line 3: not a row of a CSV file"),
        (b'a,b\n1,2\n3,"x"y\n', "line 3: not a row of a CSV file"),
        (b"a,b\n1,2\n3,it\x92s\n", r"line 3: not UTF-8 \(.*0x92.*\); convert the file to UTF-8, such as with iconv"),
        ("a,b\n1,2\n".encode("utf-16") + b"\n", "not the UTF-16 that it begins as"),
        (b"a,b\n1,2\nx,2\n", r"line 3, 'a': got 'x'; it must be a number"),
        (b"a;b\n1;2\n0,5;2\n", r"line 3, 'a': got '0,5'; it must be a number, such as 0\.5"),
        (b"a,b\n1,2\n1_000,2\n", r"line 3, 'a': got '1_000'"),
        (b"a,b\n1,2\n,2\n", r"line 3, 'a': got ''"),
    ],
)
def test_what_is_wrong_is_named_by_file_and_line(path, content, message):
    path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        read(path)


def test_what_is_no_file(tmp_path):
    with pytest.raises(SourceError, match="is a folder; name the file in it"):
        DelimitedFile(tmp_path)
    with pytest.raises(FileNotFoundError):
        DelimitedFile(tmp_path / "nothing.csv")
