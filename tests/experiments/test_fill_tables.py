import json

import pytest

from experiments import fill_tables
from experiments.lib.provenance import measured_on
from multimodal_pad import PaddingError
from tests.helpers.repository import needs_repository

MARKED = "<!-- table experiments.lib.tables:shown {file} -->\n{body}<!-- end of table -->\n"


@needs_repository
@pytest.mark.parametrize("page", fill_tables.pages(), ids=lambda page: page.name)
def test_the_tables_are_those_of_the_committed_results(page):
    filled, files = fill_tables.fill(page)
    assert filled == page.read_text(encoding="utf-8")
    for file in files:
        results = json.loads((fill_tables.ROOT / file).read_text(encoding="utf-8"))
        for name in ("command", "commit", "versions", "device"):
            assert results[name], (file, name)


@needs_repository
def test_the_pages_hold_tables():
    shown = {page.name: fill_tables.fill(page)[1] for page in fill_tables.pages()}
    assert shown["README.md"]
    assert sum(map(len, shown.values())) >= 10


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setattr(fill_tables, "ROOT", tmp_path)
    monkeypatch.setattr("experiments.lib.tables.shown", lambda results: f"**{results['n']}**", raising=False)
    (tmp_path / "results.json").write_text('{"n": 3}', encoding="utf-8")
    (tmp_path / "docs").mkdir()
    return tmp_path / "README.md"


def test_a_footer_links_from_its_page_to_the_result_file(page, monkeypatch):
    origin = {"device": {"platform": "cpu", "cpu": "a CPU", "cores": 2}, "versions": {"jax": "1", "flax": "2"}}
    (page.parent / "results.json").write_text(json.dumps({**origin, "commit": "0" * 40}), encoding="utf-8")
    monkeypatch.setattr("experiments.lib.tables.shown", measured_on)
    for place, link in ((page, "results.json"), (page.parent / "docs" / "page.md", "../results.json")):
        place.write_text(MARKED.format(file="results.json", body=""), encoding="utf-8")
        line = f"a CPU, 2 cores, CPU only; jax 1, flax 2; commit 0000000000; [result]({link})"
        assert fill_tables.fill(place)[0].splitlines()[1] == line


def test_a_page_is_filled_and_checked(page, capsys):
    page.write_text("before\n" + MARKED.format(file="results.json", body="") + "after\n", encoding="utf-8")
    assert fill_tables.main(["--check"]) == 2
    assert "its tables are not those of results.json" in capsys.readouterr().err
    assert fill_tables.main([]) == 0
    assert page.read_text(encoding="utf-8") == (
        "before\n" + MARKED.format(file="results.json", body="**3**\n") + "after\n"
    )
    assert fill_tables.main(["--check"]) == 0


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (MARKED.format(file="nowhere.json", body=""), "can't be made"),
        (MARKED.format(file="results.json", body="").replace("shown", "absent"), "can't be made"),
        ("<!-- table experiments.lib.tables:shown results.json -->\n", "marker without its end"),
        ("<!-- end of table -->\n", "marker without its end"),
    ],
)
def test_what_can_not_be_filled(page, text, match):
    page.write_text(text, encoding="utf-8")
    with pytest.raises(PaddingError, match=match):
        fill_tables.fill(page)
