"""Tables and bars within a width: no line is longer, and nothing of them is lost."""

import io
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from multimodal_pad.commands.tables import print_table
from multimodal_pad.progress_bars import progress_bars
from multimodal_pad.terminal import output_console
from multimodal_pad.text_table import terminal_width, text_table, wrapped
from multimodal_pad.training.history import EpochRecord, History

WIDTHS = st.integers(20, 140)
CELLS = st.text("ab1. (", min_size=1, max_size=30).filter(str.strip)


@st.composite
def tables(draw):
    columns = draw(st.integers(1, 12))
    row = st.lists(CELLS, min_size=columns, max_size=columns)
    return draw(row), draw(st.lists(row, min_size=1, max_size=4))


def letters(lines):
    return Counter(letter for line in lines for letter in line if not letter.isspace())


@given(table=tables(), keys=st.integers(0, 2), width=WIDTHS)
def test_a_table_fits_and_holds_all_of_it(table, keys, width):
    heading, body = table
    lines = text_table(heading, body, left=min(keys, 1), keys=min(keys, len(heading)), width=width)
    assert max(map(len, lines)) <= width
    assert letters(lines) >= letters([cell for row in (heading, *body) for cell in row])


@given(table=tables())
def test_a_table_of_which_all_fits_is_as_it_was(table):
    heading, body = table
    assert text_table(heading, body, left=1, width=1000) == text_table(heading, body, left=1)


@given(count=st.integers(2, 12), width=WIDTHS)
def test_each_block_says_what_its_rows_are_of(count, width):
    """Numbers in a row of their own columns, found again by name and heading."""
    heading, names = ["name", *(f"h{m}" for m in range(count))], ["one", "two"]
    body = [[name, *(f"{name}{m}" for m in range(count))] for name in names]
    found = {}
    for block in "\n".join(text_table(heading, body, left=1, width=width)).split("\n\n"):
        head, *rows = (line.split() for line in block.splitlines())
        assert head[0] == "name"
        found |= {(row[0], column): cell for row in rows for column, cell in zip(head[1:], row[1:], strict=True)}
    assert found == {(name, f"h{m}"): f"{name}{m}" for name in names for m in range(count)}


def test_rows_without_names_are_numbered_where_they_are_split():
    lines = text_table(["text", "audio", "visual"], [["1", "2", "3"], ["4", "5", "6"]], width=20)
    assert lines == ["text  audio  visual", "   1      2       3", "   4      5       6"]
    lines = text_table(["text", "audio", "a_third_one"], [["1", "2", "3"], ["4", "5", "6"]], width=20)
    assert [line.split() for line in lines if line] == [
        ["#", "text", "audio"],
        ["1", "1", "2"],
        ["2", "4", "5"],
        ["#", "a_third_one"],
        ["1", "3"],
        ["2", "6"],
    ]


@given(lines=st.lists(st.text("ab1. ", max_size=200), max_size=3), width=WIDTHS)
def test_prose_fits_and_holds_all_of_it(lines, width):
    broken = wrapped(lines, width)
    assert max(map(len, broken), default=0) <= width
    assert letters(broken) == letters(lines)
    assert wrapped(broken, width) == broken


@given(table=tables(), width=st.integers(24, 140))
def test_a_drawn_table_fits_and_holds_all_of_it(table, width):
    heading, body = table
    file = io.StringIO()
    print_table(Console(file=file, width=width, color_system=None), "lengths", heading, body)
    lines = file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert letters(lines) >= letters([cell for row in (heading, *body) for cell in row])


@given(
    modalities=st.lists(st.text("abcdef", min_size=1, max_size=12), min_size=1, max_size=6),
    width=st.integers(40, 140),
    total=st.integers(1, 9999),
)
def test_a_bar_keeps_its_count_its_time_and_its_description(modalities, width, total):
    told = f"compiled train_step for 32 x ({', '.join(f'{name} 1024' for name in modalities)})"
    console = Console(width=width, color_system=None)
    bars = progress_bars(MofNCompleteColumn, TimeElapsedColumn, console=console)
    bars.add_task(told, total=total, completed=total)
    with console.capture() as captured:
        console.print(bars.get_renderable())
    lines = captured.get().splitlines()
    assert max(map(len, lines)) <= width
    assert f" {total}/{total} " in lines[0]
    assert ":" in lines[0].split()[-1]
    assert letters(lines) >= letters([told])


@pytest.mark.parametrize(("columns", "width"), [("60", 60), ("0", None), ("wide", None), ("", None)])
def test_columns_of_the_environment_are_kept_to(monkeypatch, columns, width):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert terminal_width() == width
    assert output_console().width == (width or 160)


def test_a_history_fits_its_terminal(monkeypatch):
    figures = dict.fromkeys(("loss", "accuracy", "weighted_f1", "mae", "correlation"), 0.5)
    history = History([EpochRecord(epoch, 1.0, 3.0, figures, best=epoch == 1) for epoch in range(3)])
    monkeypatch.delenv("COLUMNS", raising=False)
    whole = str(history).splitlines()
    assert len(whole) == 4
    for width in (60, 80):
        monkeypatch.setenv("COLUMNS", str(width))
        lines = str(history).splitlines()
        assert max(map(len, lines)) <= width
        assert set(str(history).split()) == set("\n".join(whole).split())
        assert sum(line.split()[:2] == ["1", "*"] for line in lines) == lines.count("") + 1
