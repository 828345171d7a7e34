import contextlib
import io
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_snippet_prints_what_the_readme_says():
    snippet, printed = re.findall(r"```python\n(.*?)```\n\n```\n(.*?)```", README, re.DOTALL)[0]
    assert len(snippet.splitlines()) < 20
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        exec(compile(snippet, "README.md", "exec"), {})
    assert output.getvalue() == printed


def test_files_that_the_readme_shows_are_there():
    links = re.findall(r"\]\(([^)#:\s]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
