"""The evidence as one HTML file: a headline, and the figures and tables of every part and where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from experiments.lib.charts import Figure, figure_html, scripts
from experiments.lib.page import html_page
from experiments.lib.tables import Table, to_html
from multimodal_pad.output import write_file

FILE = "index.html"


class Section(NamedTuple):
    """One part of the page.

    Attributes:
        anchor: of links to it.
        title: a question.
        answer: paragraphs, the first of which stands above the figures.
        figures: charts.
        tables: below all that.
        origin: command, commit, versions, device.
        headline: one sentence for all parts, which the first one brings along; it stands above them.
    """

    anchor: str
    title: str
    answer: Sequence[str]
    figures: Sequence[Figure]
    tables: Sequence[Table]
    origin: str
    headline: str = ""


def write_page(title: str, sections: Sequence[Section], out: Path) -> Path:
    """Write ``index.html`` into ``out``, aside and renamed when whole."""
    links = "".join(f"<li><a href=#{section.anchor}>{to_html(section.title)}</a></li>" for section in sections)
    headline = "".join(f"<p class=headline>{to_html(each.headline)}</p>" for each in sections[:1] if each.headline)
    parts = [f"<h1>{to_html(title)}</h1>", headline, f"<nav><ul>{links}</ul></nav>", *map(_section, sections)]
    drawn = scripts() if any(section.figures for section in sections) else ""
    file = out / FILE
    write_file(file, html_page(title, "\n".join(parts), drawn).encode())
    return file


def _section(section: Section) -> str:
    first, *more = (f"<p>{to_html(text)}</p>" for text in section.answer)
    figures = "".join(
        figure_html(figure, f"{section.anchor}-{place}", level=3) for place, figure in enumerate(section.figures)
    )
    tables = "".join(map(_table, section.tables))
    return (
        f"<section id={section.anchor}><h2>{to_html(section.title)}</h2>{first}{figures}{''.join(more)}{tables}"
        f"<p class=origin>{to_html(section.origin)}</p></section>"
    )


def _table(table: Table) -> str:
    title = f"<h3>{to_html(table.title)}</h3>"
    return f"<details><summary>{title}</summary>{table.html()}</details>" if table.folded else title + table.html()
