import contextlib
import io
import json
import re
from pathlib import Path

from experiments.compare_report import markdown

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_the_readme_says():
    snippet, printed = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL)[0]
    assert len(snippet.splitlines()) < 20
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(snippet, "README.md", "exec"), {})
    assert output.getvalue() == printed


def test_the_table_is_that_of_the_committed_results():
    files = sorted((ROOT / "results" / "compare_padding").glob("readme-*/results.json"))
    assert files
    for file in files:
        assert markdown(json.loads(file.read_text(encoding="utf-8"))) in README
