"""The lines that docs/corpora.md shows run as they stand, and its tables are those of committed results."""

import re
from pathlib import Path

import pytest

from multimodal_pad.cli import main
from tests.helpers.corpora import write_mult

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "corpora.md").read_text(encoding="utf-8")


def blocks(language):
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [body for found, body in fenced if found == language]


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return write_mult(tmp_path)


@pytest.mark.filterwarnings("ignore::multimodal_pad.PlanWarning")
def test_from_the_file_to_batches(corpus, tmp_path):
    for line in blocks("sh")[0].splitlines():
        command, *arguments = line.split()
        assert (command, main(arguments)) == ("multimodal-pad", 0)
    names = {}
    exec(blocks("python")[0], names)
    assert sum(int(batch.sample_mask.sum()) for batch in names["batcher"].epoch(0)) == len(corpus.splits["train"])
    shown = re.findall(r"^mosi/([\w./]+)", blocks("")[1], re.MULTILINE)
    assert shown
    for name in shown:
        assert (tmp_path / "mosi" / name).is_file()


def test_tfds(corpus):
    pytest.importorskip("tensorflow_datasets")
    names = {}
    exec(blocks("python")[1], names)
    assert len(names["source"]) == len(corpus.splits["train"])


def test_the_error_is_what_is_printed(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mosi.pkl").write_bytes(b"\x80\x02}X\x05\x00\x00\x00train(V" + b"a" * 13 + b"\ncposix\nsystem\n")
    assert main(["convert", "mult", "mosi.pkl", "mosi"]) == 2
    shown = blocks("")[0]
    assert re.sub(r"\s+", " ", capsys.readouterr().err).strip() == re.sub(r"\s+", " ", shown).strip()
