"""The pictures of a corpus' batches, plan and packing, and the page that shows them."""

import json
import re
from pathlib import Path

import pytest

from experiments.gallery import __main__ as gallery

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery") / "quick"
    assert gallery.main(["--quick", "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_it_draws_three_pictures(quick):
    names = {"results.json", "batches.png", "plan.png", "packing.png"}
    assert {file.name for file in quick.iterdir()} == names
    for picture in quick.glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG")
        assert picture.stat().st_size > 10_000


@pytest.mark.slow
def test_the_batches_are_of_as_many_samples_and_hold_them(quick):
    rows = json.loads((quick / "results.json").read_text(encoding="utf-8"))["rows"]
    assert [row["policy"] for row in rows] == ["fixed", "exact", "powers_of_two", "planned_2", "packed"]
    for row in rows:
        batch = row["batch"]
        assert len(batch["lengths"]) == gallery.QUICK["batch_size"]
        most = sum if batch["packed"] else max
        assert all(
            most(column) <= n for column, n in zip(zip(*batch["lengths"], strict=True), batch["padded"], strict=True)
        )


def test_every_picture_of_the_page_is_committed_and_described():
    page = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
    pictures = re.findall(r"!\[([^\]]*)\]\(\.\./([^)]+)\)", page)
    assert len(pictures) >= 6
    for described, path in pictures:
        assert len(described) > 30
        assert (ROOT / path).read_bytes().startswith(b"\x89PNG")
    sections = page.split("\n## ")[1:]
    assert all(section.count("```sh") == 1 and section.count("![") == 1 for section in sections)
