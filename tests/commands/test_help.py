"""--help fits a terminal of 60 columns, and its examples are commands that are read."""

import argparse
import re
import shlex

import pytest

from multimodal_pad.cli import _parser
from multimodal_pad.commands import convert, plan


def parsers(parser):
    """A parser, and those of its commands and sources."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from parsers(below)


@pytest.mark.parametrize("parser", list(parsers(_parser())), ids=lambda parser: parser.prog)
def test_no_line_is_longer_than_the_terminal(parser, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, parser.format_help().splitlines())) <= 60


def test_paragraphs_are_as_wide_as_the_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert max(map(len, _parser().format_help().splitlines())) < 200
    [line] = [line for line in _plan().format_help().splitlines() if line.startswith("Choose the batch shapes")]
    assert line.endswith("under a compile budget.")


@pytest.mark.parametrize("examples", [plan.EXAMPLES, convert.EXAMPLES])
def test_examples_are_read(examples):
    commands = re.sub(r"\\\n\s+|\|\n\s+", lambda found: found[0][0].replace("\\", ""), examples)
    found = re.findall(r"multimodal-pad (.+)", commands)
    assert len(found) >= 6
    for command in found:
        _parser().parse_args(shlex.split(command))


def _plan():
    [found] = [parser for parser in parsers(_parser()) if parser.prog.endswith(" plan")]
    return found
