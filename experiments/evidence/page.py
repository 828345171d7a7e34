"""The evidence as one HTML file: the verdicts, the tables and pictures of every part, and where they come from."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.lib.page import html_page
from experiments.lib.tables import Table, to_html
from multimodal_pad.output import write_file

FILE = "index.html"


class Section(NamedTuple):
    """One part of the page.

    Attributes:
        anchor: of links to it.
        title: a question.
        answer: paragraphs, made of figures.
        tables: below them.
        pictures: PNG files.
        origin: command, commit, versions, device.
    """

    anchor: str
    title: str
    answer: Sequence[str]
    tables: Sequence[Table]
    pictures: Sequence[Path]
    origin: str


def write_page(title: str, sections: Sequence[Section], out: Path) -> Path:
    """Write ``index.html`` into ``out``, aside and renamed when whole."""
    links = "".join(f"<li><a href=#{section.anchor}>{to_html(section.title)}</a></li>" for section in sections)
    parts = [f"<h1>{to_html(title)}</h1>", f"<nav><ul>{links}</ul></nav>", *map(_section, sections)]
    file = out / FILE
    write_file(file, html_page(title, "\n".join(parts)).encode())
    return file


def _section(section: Section) -> str:
    answer = "".join(f"<p>{to_html(text)}</p>" for text in section.answer)
    tables = "".join(map(_table, section.tables))
    pictures = "".join(_picture(path, section.title) for path in section.pictures)
    return (
        f"<section id={section.anchor}><h2>{to_html(section.title)}</h2>{answer}{pictures}{tables}"
        f"<p class=origin>{to_html(section.origin)}</p></section>"
    )


def _table(table: Table) -> str:
    title = f"<h3>{to_html(table.title)}</h3>"
    return f"<details><summary>{title}</summary>{table.html()}</details>" if table.folded else title + table.html()


def _picture(path: Path, title: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<figure><img src="data:image/png;base64,{data}" alt="{to_html(title)}"></figure>'
