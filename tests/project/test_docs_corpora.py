"""What docs/corpora.md says of files and errors."""

import re
from pathlib import Path

from multimodal_pad.cli import main
from tests.helpers.corpora import write_mult

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [body for found, body in fenced if found == language]


def test_the_files_that_the_page_shows_are_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_mult(tmp_path)
    command, *arguments = blocks("sh")[0].splitlines()[0].split()
    assert (command, main(arguments)) == ("multimodal-pad", 0)
    shown = re.findall(r"^mosi/([\w./]+)", blocks("")[1], re.MULTILINE)
    assert shown
    for name in shown:
        assert (tmp_path / "mosi" / name).is_file()


def test_the_error_is_what_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mosi.pkl").write_bytes(b"\x80\x02}X\x05\x00\x00\x00train(V" + b"a" * 13 + b"\ncposix\nsystem\n")
    assert main(["convert", "mult", "mosi.pkl", "mosi"]) == 2
    shown = blocks("")[0]
    assert re.sub(r"\s+", " ", capsys.readouterr().err).strip() == re.sub(r"\s+", " ", shown).strip()
