"""docs/command-line.md names every command, source, option and choice of ``--help``, and nothing else."""

import argparse
import re
import shlex
from pathlib import Path

import pytest

from multimodal_pad.cli import _parser, main
from multimodal_pad.signals import ENDING, Ended, status_of

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "command-line.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.+?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))


def subparsers(parser):
    """The parsers of a parser's commands by name; none where it has no commands."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


COMMANDS = subparsers(_parser())
PARSERS = [(name, None) for name in COMMANDS] + [("convert", source) for source in subparsers(COMMANDS["convert"])]


def options(parser):
    return {
        action.option_strings[-1]: action
        for action in parser._actions
        if action.option_strings and action.dest != "help"
    }


def rows(command, source):
    """The text of each option's row that is for a command, or for one of the sources of ``convert``."""
    found = {}
    for name, usage, more in re.findall(r"^\| `(--[\w-]+)([^`]*)` \| (.*)$", SECTIONS[command], re.MULTILINE):
        sources = re.fullmatch(r"(`\w+`(?:, `\w+`)*)", more.split(" | ")[0])
        if sources is None or source in re.findall(r"\w+", sources[0]):
            assert name not in found
            found[name] = usage.strip(), more
    return found


@pytest.mark.parametrize(("command", "source"), PARSERS, ids=lambda name: name or "")
def test_every_option_has_its_row(command, source):
    parser = COMMANDS[command] if source is None else subparsers(COMMANDS[command])[source]
    expected = options(parser)
    found = rows(command, source)
    if not subparsers(parser):  # the options of convert are those of its sources
        assert found.keys() == expected.keys()
    for name, action in expected.items():
        usage, more = found[name]
        for choice in action.choices or ():
            assert f"`{choice}`" in more, name
        if action.metavar is not None:
            several = action.nargs == "+"
            assert usage == (f"{action.metavar} [{action.metavar} ...]" if several else action.metavar), name
        default = re.search(r"\(default: ([\d.]+)", action.help)
        if default is not None:
            assert default[1] in more.split(" | ")[-1], name


def test_every_command_and_source_is_named():
    assert set(COMMANDS) == {name for name in SECTIONS if name != "Exit statuses"}
    sources = re.findall(r"^\| `(\w+)` \| (\w+) \|", SECTIONS["convert"], re.MULTILINE)
    assert dict(sources) == {
        name: parser._actions[1].metavar for name, parser in subparsers(COMMANDS["convert"]).items()
    }
    assert len(sources) == len(dict(sources))
    for name in options(_parser()):
        assert name in TEXT.partition("\n## ")[0]


def test_the_statuses_are_those_of_signals_and_errors(capsys):
    statuses = [int(status) for status in re.findall(r"^\| (\d+) \|", SECTIONS["Exit statuses"], re.MULTILINE)]
    assert statuses == [0, 1, 2, *sorted(status_of(Ended(number)) for number in ENDING)]
    with pytest.raises(SystemExit) as ended:
        main(["plan", "--no-such-option"])
    assert ended.value.code == 2
    assert main(["inspect", "no-such-cache"]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_the_output_is_what_is_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    [(written, command, shown)] = re.findall(
        r"^```python\n(.*?)^```\n\n```sh\n(.*?)^```\n\n```text\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE
    )
    exec(compile(written, "command-line.md", "exec"), {})
    assert main(shlex.split(command)[1:]) == 0
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == shown.splitlines()
