"""A page of results: one HTML file with everything inside and nothing to fetch."""

from __future__ import annotations

import html
from collections.abc import Sequence


def html_page(title: str, body: str, script: str = "") -> str:
    """Return the whole document; ``script`` runs when all of the body is there."""
    drawn = f"<script>{script}</script>\n" if script else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{html.escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
{body}
</main>
{drawn}</body>
</html>
"""


def cards(heading: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table whose rows become cards in a narrow window, so that nothing of it is hidden there.

    The first cell of a row is its name.
    """
    head = "".join(f"<th scope=col role=columnheader>{html.escape(cell)}</th>" for cell in heading)
    body = "".join(
        f"<tr role=row><th scope=row role=rowheader>{html.escape(name)}</th>"
        + "".join(
            f'<td role=cell data-label="{html.escape(column)}">{html.escape(cell)}</td>'
            for column, cell in zip(heading[1:], cells, strict=True)
        )
        + "</tr>"
        for name, *cells in rows
    )
    # Where rows are cards, browsers no longer take them for rows: the roles say it.
    return (
        f"<table class=cards role=table><caption>{html.escape(caption)}</caption>"
        f"<thead role=rowgroup><tr role=row>{head}</tr></thead>"
        f"<tbody role=rowgroup>{body}</tbody></table>"
    )


_STYLE = """
:root { --ink: #1d2733; --soft: #4b5763; --line: #d5dce4; --paper: #fff; --raised: #f3f6f9; --strong: #1f4fb0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e9ef; --soft: #a9b5c2; --line: #36414d; --paper: #12161b; --raised: #1b2128; --strong: #9dbcff; }
}
@media print {
  :root { --ink: #000; --soft: #333; --line: #bbb; --paper: #fff; --raised: #fff; --strong: #000; }
  .chart, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .chart svg { max-width: 100%; height: auto; }
  .scroll table { font-size: .7rem; }
}
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
main { max-width: 1120px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.1rem; font-weight: 600; color: var(--soft); margin: 0 0 .3rem; }
h2 { font-size: 1.2rem; margin: 0 0 .2rem; }
section, figure { margin: 2.6rem 0 0; }
h3 { font-size: 1rem; margin: 1.8rem 0 .4rem; }
summary h3 { display: inline; }
a { color: var(--strong); }
.headline { font-size: 1.45rem; line-height: 1.35; max-width: 44ch; margin: 0 0 1rem; }
.headline strong { color: var(--strong); }
p, li, figcaption { max-width: 72ch; }
figcaption, .note, .origin, pre { color: var(--soft); font-size: .92rem; }
.origin, .note, pre { font-size: .85rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.note, .origin { white-space: normal; }
details { margin: 1.8rem 0; }
summary { cursor: pointer; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; width: 100%; }
caption { text-align: left; color: var(--soft); padding-bottom: .4rem; }
th, td { padding: .35rem .9rem .35rem 0; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th[scope=row], th:first-child, .words { text-align: left; font-weight: 500; }
td.words { font-weight: 400; }
.best { background: var(--raised); }
.prose td { white-space: normal; vertical-align: top; }
.prose td:nth-child(2) { min-width: 11rem; }
.scroll { overflow-x: auto; }
.scroll td:first-child, .scroll th:first-child { position: sticky; left: 0; background: var(--paper); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: .2rem 1rem; padding: 0; margin: .6rem 0 0;
  font-size: .88rem; }
.legend span { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .4em; }
.charts { display: grid; gap: 1.2rem; margin-top: .8rem; grid-template-columns: minmax(0, 1fr); }
.chart { min-width: 0; }
figure { margin-inline: 0; }
figure img { width: 100%; height: auto; background: #fff; }
@media (min-width: 800px) {
  .columns-2 { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .columns-3 { grid-template-columns: repeat(3, minmax(0, 1fr)); }
}
@media (max-width: 700px) {
  .cards thead { position: absolute; clip-path: inset(50%); height: 1px; width: 1px; overflow: hidden; }
  .cards, .cards tbody, .cards tr, .cards td, .cards th, .cards caption { display: block; width: 100%; }
  .cards tr { border-bottom: 1px solid var(--line); padding: .6rem 0; }
  .cards th[scope=row] { font-weight: 650; border: 0; padding: 0 0 .2rem; }
  .cards td { display: flex; justify-content: space-between; gap: 1rem; border: 0; padding: .1rem 0; }
  .cards td::before { content: attr(data-label); color: var(--soft); text-align: left; }
  .prose thead { display: none; }
  .prose tr { display: block; border-bottom: 1px solid var(--line); padding: .5rem 0; }
  .prose td { display: block; border: 0; padding: .1rem 0; }
}
#vg-tooltip-element.custom-theme { background: var(--raised); color: var(--ink); border: 1px solid var(--line);
  font: 13px/1.4 system-ui, sans-serif; padding: .4rem .6rem; border-radius: 4px; }
#vg-tooltip-element.custom-theme td.key { color: var(--soft); }
#vg-tooltip-element { position: fixed; visibility: hidden; }
"""
