import re
from pathlib import Path

from tests.helpers.repository import needs_repository

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_snippet_is_short():
    snippet = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    assert len(snippet.splitlines()) < 20


@needs_repository
def test_files_that_the_readme_shows_are_there():
    links = re.findall(r"\]\(([^)#:\s]+)", README)
    assert links
    assert [link for link in links if not (ROOT / link).is_file()] == []
