"""Files outside docs/ that a page links to, such as pictures in results/, are copied into the site.

So a link that works in the repository works on the site, too. What is not there stays as it is, for MkDocs to report.
"""

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

FOLDER = "repository"
"""Where they lie on the site, at the path that they have in the repository."""

_LINK = re.compile(r"(?<=\]\()(\.\./[^)#\s]+)")


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """The page with its links to files outside docs/ led to the copies."""
    docs = Path(config.docs_dir).resolve()
    root = Path(config.config_file_path).resolve().parent
    here = (docs / page.file.src_uri).parent

    def led_to_copy(match: re.Match[str]) -> str:
        target = (here / match[1]).resolve()
        if target.is_relative_to(docs) or not target.is_relative_to(root) or not target.is_file():
            return match[1]
        copy = f"{FOLDER}/{target.relative_to(root).as_posix()}"
        if files.get_file_from_path(copy) is None:
            files.append(File.generated(config, copy, abs_src_path=str(target)))
        return "../" * page.file.src_uri.count("/") + copy

    return _LINK.sub(led_to_copy, markdown)
