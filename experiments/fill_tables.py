"""Fill the tables of README.md and docs/ from committed results, so that no figure is typed by hand.

A page names the source of a table:

    <!-- table experiments.planning.__main__:markdown results/planning/meld/results.json -->
    ...
    <!-- end of table -->

The named function makes the text between the two lines from the results in that file, to which the page's link to the
file is added.

With Python: python -m experiments.fill_tables; with --check, change nothing and fail where something would change
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from importlib import import_module
from pathlib import Path

from experiments.lib.provenance import LINK
from multimodal_pad import PaddingError
from multimodal_pad.cli import exit_status
from multimodal_pad.output import write_file

ROOT = Path(__file__).resolve().parent.parent
END = "<!-- end of table -->"
_TABLE = re.compile(r"^<!-- table (\S+):(\w+) (\S+) -->\n(.*?)^<!-- end of table -->$", re.DOTALL | re.MULTILINE)


def pages() -> list[Path]:
    """Return README.md and all pages under docs/, since any of them may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def fill(page: Path) -> tuple[str, list[str]]:
    """Return the text of a page as it should be, and the result files that it shows.

    Raises:
        PaddingError: if a marker has no end, or names a function or a file that is not there.
    """
    text = page.read_text(encoding="utf-8")
    files: list[str] = []

    def table(found: re.Match[str]) -> str:
        module, function, file = found.group(1, 2, 3)
        files.append(file)
        try:
            results = json.loads((ROOT / file).read_text(encoding="utf-8"))
            link = Path(os.path.relpath(ROOT / file, page.parent)).as_posix()
            made = getattr(import_module(module), function)({**results, LINK: link})
        except (OSError, ImportError, AttributeError, LookupError, ValueError) as error:
            raise PaddingError(f"{page}: the table of {module}:{function} from {file} can't be made: {error}") from None
        return f"<!-- table {module}:{function} {file} -->\n{made}\n{END}"

    filled = _TABLE.sub(table, text)
    if text.count("<!-- table ") != len(files) or text.count(END) != len(files):
        raise PaddingError(f"{page}: a table's marker without its end, or the other way round; see --help for the form")
    return filled, files


def main(arguments: list[str]) -> int:
    """Fill or check the pages; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.fill_tables",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--check", action="store_true", help="change nothing; an error where a page would change")
    options = parser.parse_args(arguments)
    return exit_status(lambda: _run(check=options.check))


def _run(*, check: bool) -> None:
    for page in pages():
        filled, files = fill(page)
        if filled == page.read_text(encoding="utf-8"):
            continue
        if check:
            raise PaddingError(f"{page}: its tables are not those of {', '.join(files)}; run experiments.fill_tables")
        write_file(page, filled.encode())
        print(f"Filled: {page}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
