"""The lines that docs/scale.md shows run as they stand, and its tables are those of committed results."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, LengthTable, Planned, StreamBatcher, plan_shapes
from multimodal_pad.compiling import warm_up
from multimodal_pad.sources import Synthetic

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(section):
    """The Python of a section."""
    (part,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE)
    return re.findall(r"```python\n(.*?)```", part, re.DOTALL)


class TextAndAudio:
    """The first two modalities of a synthetic corpus."""

    def __init__(self):
        self.whole = Synthetic(60)
        self.lengths = self.whole.lengths.select(("text", "audio"))
        self.targets = self.whole.targets

    def __len__(self):
        return len(self.whole)

    def __getitem__(self, index):
        return {name: self.whole[index][name] for name in ("text", "audio", "targets")}


@pytest.fixture
def names():
    source = TextAndAudio()
    plan = plan_shapes(source.lengths, max_shapes=2, batch_size=8)
    return {
        "np": np,
        "json": json,
        "warm_up": warm_up,
        "LengthTable": LengthTable,
        "Planned": Planned,
        "BucketBatcher": BucketBatcher,
        "StreamBatcher": StreamBatcher,
        "source": source,
        "plan": plan,
        "samples": [source[i] for i in range(60)],
        "batcher": BucketBatcher(source, Planned(plan)),
        "labels": source.targets,
    }


def test_many_samples(names, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("lengths.npy", names["source"].lengths.values)
    (block,) = blocks("Many samples")
    exec(block, names)
    assert isinstance(names["lengths"].values.base, np.memmap)
    assert len(list(names["batcher"].epoch(0))) == 8


def test_how_random_it_is(names):
    (block,) = blocks("How random it is")
    exec(block, names)
    assert "dependence of label on shape" in str(names["report"])


def test_resuming(names):
    list(names["batcher"].epoch(0))
    (block,) = blocks("Resuming")
    exec(block, names)
    assert names["batcher"].position == (9, len(names["batcher"].schedule(9)))
    assert len(names["state"]) < 600


def test_streams(names, capsys):
    names |= {"state": np.int32(0), "train_step": lambda state, batch: (state + batch.sample_mask.sum(), None)}
    (block,) = blocks("Streams")
    exec(
        block.replace("batch_size=32", "batch_size=8").replace("batcher, state)", "batcher, state, progress=False)"),
        names,
    )
    assert names["state"] == 60
    assert "of the last 60 samples" in capsys.readouterr().out


def test_grain(names):
    grain = pytest.importorskip("grain")
    names |= {"state": names["batcher"].state()}
    names["samples"] = grain.MapDataset.source(names["samples"]).to_iter_dataset()
    (block,) = blocks("Grain")
    first, second = re.split(r"\n\n(?=batches)", block)[1:]
    exec(block.split("\n\n")[0], names)
    exec(first, names)
    assert sum(1 for _ in names["batches"]) >= 80
    exec(second, names)
    assert sum(int(batch.sample_mask.sum()) for batch in names["batches"]) == 60
