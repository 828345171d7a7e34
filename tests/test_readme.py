import contextlib
import io
import json
import re
from pathlib import Path

import pytest

from experiments import calibration, compare_report, planning, start_up

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_the_readme_says():
    snippet, printed = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL)[0]
    assert len(snippet.splitlines()) < 20
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(snippet, "README.md", "exec"), {})
    assert output.getvalue() == printed


@pytest.mark.parametrize(
    ("experiment", "markdown"),
    [
        ("compare_padding", compare_report.markdown),
        ("planning", planning.markdown),
        ("start_up", start_up.markdown),
        ("calibration", calibration.markdown),
    ],
)
def test_the_tables_are_those_of_the_committed_results(experiment, markdown):
    files = sorted((ROOT / "results" / experiment).glob("readme-*/results.json"))
    assert files
    for file in files:
        assert markdown(json.loads(file.read_text(encoding="utf-8"))) in README


def test_files_that_the_readme_shows_are_there():
    for link in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / link).is_file(), link
