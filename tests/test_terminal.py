"""What is printed: names that can't command the terminal, outputs that are closed, encodings that lack a letter."""

import io
import os
import re
import struct
import subprocess
import sys
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from multimodal_pad.cli import main
from multimodal_pad.sources import convert
from multimodal_pad.terminal import as_cell, in_a_line, output_console, plain, tell

EVIL = "te\x1b]0;owned\x07xt\x1b[31m"


@given(st.text(st.characters(exclude_categories=[])))
def test_nothing_that_commands_a_terminal_is_left(text):
    shown = plain(text)
    assert all(unicodedata.category(letter) not in ("Cc", "Cs") or letter in "\n\t" for letter in shown)
    assert shown.encode().decode() == shown
    assert "\n" not in in_a_line(text)


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_other_text_is_left_as_it_is(text):
    assert plain(text) == text


def test_a_table_shows_names_as_text(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    table = Table(title=as_cell(EVIL))
    table.add_column(as_cell("[bold]" + EVIL))
    table.add_row(EVIL)
    console = output_console()
    console.print(table)
    tell(console, EVIL)
    shown = sys.stdout.getvalue()
    assert "\x1b" not in shown
    assert "\x07" not in shown
    assert shown.count("\\x1b]0;owned") == 4
    assert "[bold]" in shown


def run(*arguments, **options):
    command = [sys.executable, "-m", "multimodal_pad.cli", *arguments]
    return subprocess.run(command, capture_output=True, timeout=120, check=False, **options)


@pytest.mark.parametrize("command", ["plan", "inspect"])
def test_columns_with_escapes_are_printed_as_text(command, tmp_path, capsys):
    path = tmp_path / "lengths\x1b[31m.csv"
    path.write_text(f"{EVIL},audio\n3,40\n4,2\n")
    assert main([command, str(path)]) == 0
    printed = capsys.readouterr()
    assert "\x1b" not in printed.out + printed.err
    assert "\\x1b]0;owned" in printed.out


def test_errors_are_one_line_without_escapes(tmp_path, capsys):
    assert main(["plan", str(tmp_path / "no\x1b[31m\nfile.csv")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "\x1b" not in line


@pytest.fixture(scope="module")
def lengths_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("terminal") / "lengths.csv"
    path.write_text("text,audio\n3,40\n4,2\n")
    return path


@pytest.mark.skipif(os.name != "posix", reason="a shell closes the output")
@pytest.mark.parametrize(
    ("to", "status", "error"),
    [(">&-", 0, ""), ("| true", 1, ""), (">/dev/full", 2, "No space left"), ("2>&- >&-", 0, "")],
)
def test_a_closed_output_is_no_traceback(to, status, error, lengths_file):
    line = f'"{sys.executable}" -m multimodal_pad.cli plan "{lengths_file}" {to}; exit ${{PIPESTATUS[0]}}'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stderr
    assert error in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_help_into_a_closed_pipe_is_no_traceback():
    line = f'"{sys.executable}" -m multimodal_pad.cli plan --help | true'
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, timeout=120, check=False)
    assert done.stderr == ""


@pytest.mark.skipif(os.name != "posix", reason="names are bytes on POSIX alone")
def test_names_that_are_no_utf8_are_converted_and_printed(tmp_path):
    source = os.fsencode(tmp_path) + b"/caf\xe9"
    convert({"train": [{"text": np.ones((2, 3), np.float32)}]}, os.fsdecode(source))
    out = os.fsencode(tmp_path) + b"/o\xfft"
    done = run("convert", "numpy_dir", source, out, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.search(rb"Written: .*/o\\udcfft ", done.stdout)
    done = run("inspect", out, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, b"")


def on_a_terminal(width, *arguments):
    """What a command prints on a pseudo-terminal, without what commands it, line by line."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, width, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    command = [sys.executable, "-m", "multimodal_pad.cli", *arguments]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.STDOUT, env=environment) as process:
        os.close(theirs)
        printed = b""
        while True:
            try:
                data = os.read(ours, 65536)
            except OSError:  # Linux says so that nothing has it open any more
                break
            if not data:
                break
            printed += data
    os.close(ours)
    return process.returncode, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode()).replace("\r", "\n").splitlines()


@pytest.mark.parametrize("command", ["plan", "inspect"])
def test_what_is_printed_fits_the_terminal(command, tmp_path):
    (tmp_path / "lengths.csv").write_text("text,audio,visual\n3,1040,790\n40,1596,1099\n17,0,811\n")
    status, lines = on_a_terminal(60, command, str(tmp_path / "lengths.csv"), "--max-shapes", "2")
    assert status == 0
    assert max(map(len, lines)) <= 60
    cells = " ".join(lines).split()
    assert {"text", "audio", "visual", "cost"} <= set(cells)
    assert not any("…" in cell for cell in cells)
