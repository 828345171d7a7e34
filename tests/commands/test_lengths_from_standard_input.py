import io
import sys

import numpy as np
import pytest

from multimodal_pad.cli import main
from multimodal_pad.commands.lengths_given import path_or_input, read_given
from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.files import read_lengths
from multimodal_pad.sources import Synthetic

TABLE = Synthetic(50).lengths
CSV = "\n".join(",".join(map(str, row)) for row in [TABLE.modalities, *TABLE.values.tolist()])


def pipe(monkeypatch, content, terminal=False):
    stdin = io.TextIOWrapper(io.BytesIO(content))
    stdin.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stdin", stdin)


@pytest.mark.parametrize("command", ["plan", "inspect"])
def test_a_pipe_says_what_a_file_says(command, tmp_path, monkeypatch, capsys):
    (tmp_path / "standard input.csv").write_text(CSV)
    options = ["--modalities", "text", "audio", "--max-shapes", "2"]
    assert main([command, str(tmp_path / "standard input.csv"), *options]) == 0
    of_a_file = capsys.readouterr().out
    pipe(monkeypatch, CSV.encode())
    assert main([command, "-", *options]) == 0
    assert capsys.readouterr().out == of_a_file.replace("standard input.csv", "standard input")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_text_is_read_as_from_a_file(encoding, separator, tmp_path, monkeypatch):
    content = CSV.replace(",", separator).encode(encoding)
    (tmp_path / "lengths.csv").write_bytes(content)
    pipe(monkeypatch, content)
    found = read_given("-", None, None)
    assert found.fingerprint == read_lengths(tmp_path / "lengths.csv").fingerprint == TABLE.fingerprint


def test_fields_are_read_from_a_pipe(monkeypatch):
    pipe(monkeypatch, b"duration,words\n2.5,oh my god\n1,no\n")
    table = read_given("-", None, {"audio": "duration@50", "text": "words:words"})
    np.testing.assert_array_equal(table.values, [[125, 3], [50, 1]])


@pytest.mark.parametrize("command", ["plan", "inspect"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "standard input is empty; a CSV is read from it, whose first line names the columns"),
        (b" \n\n", "standard input is empty"),
        (b"text,audio\n", "standard input: got no samples"),
        (b"3,40\n5,2\n", "standard input: the first line must name the columns"),
        (b"text,audio\n3,40\n5,x\n", "standard input, line 3, 'audio': got 'x'; a length is a whole number"),
        (b"text\n\xff\n", "standard input, line 2: not UTF-8"),
        (b'{"duration": 2.5}\n', "standard input: got JSON lines, and a CSV is read from it; write it to a file"),
        (b"\x93NUMPY\x01\x00", "standard input: got packed or binary data"),
    ],
)
def test_what_is_no_csv_is_said_in_a_line(command, content, message, monkeypatch, capsys):
    pipe(monkeypatch, content)
    assert main([command, "-"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {message}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("command", ["plan", "inspect"])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_terminal_is_not_waited_for(command, terminal, monkeypatch, capsys):
    pipe(monkeypatch, b"text\n3\n", terminal)
    if not terminal:
        monkeypatch.setattr(sys, "stdin", None)
    assert main([command, "-"]) == 2
    got = "is a terminal" if terminal else "is closed"
    assert f"error: standard input {got}; pipe a CSV into it" in capsys.readouterr().err


def test_input_without_end_is_refused(monkeypatch):
    monkeypatch.setattr("multimodal_pad.commands.lengths_given._MOST", 100)
    pipe(monkeypatch, b"text\n" + b"3\n" * 100)
    with pytest.raises(SourceError, match="standard input: has more than 100 bytes; write them to a file"):
        read_given("-", None, None)


def test_a_file_called_so_is_named_with_its_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-").write_text("text\n3\n")
    assert path_or_input("-") == "-"
    assert path_or_input("./-") != "-"
