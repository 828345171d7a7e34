"""A page of results: one HTML file with everything inside and nothing to fetch."""

from __future__ import annotations

import html


def html_page(title: str, body: str) -> str:
    """The whole document."""
    return _PAGE.format(title=html.escape(title), body=body)


_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
  body {{ font: 16px/1.5 system-ui, sans-serif; color: #1d2733; background: #fff; max-width: 1080px;
         margin: 0 auto; padding: 1.5rem 1rem 4rem; }}
  h1 {{ font-size: 1.7rem; margin-bottom: .25rem; }}
  h2 {{ font-size: 1.2rem; margin-top: 2.5rem; }}
  h3 {{ font-size: 1rem; margin: 1.8rem 0 .4rem; }}
  summary h3 {{ display: inline; }}
  details {{ margin: 1.8rem 0; }}
  summary {{ cursor: pointer; }}
  .scroll {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }}
  th, td {{ padding: .3rem .9rem .3rem 0; border-bottom: 1px solid #dde3ea; text-align: right; white-space: nowrap; }}
  th[scope=row], th:first-child, .words {{ text-align: left; font-weight: 500; }}
  td.words {{ font-weight: 400; }}
  .prose td {{ white-space: normal; vertical-align: top; }}
  .prose td:nth-child(2) {{ min-width: 11rem; }}
  figure {{ margin: 2rem 0; overflow-x: auto; }}
  figure svg, figure img {{ width: 100%; min-width: 560px; height: auto; }}
  figcaption {{ color: #55606d; font-size: .92rem; max-width: 72ch; }}
  p, li {{ max-width: 72ch; }}
  pre, .origin, .note {{ color: #55606d; font-size: .85rem; overflow-x: auto; }}
  .origin code, .note code {{ overflow-wrap: anywhere; }}
  nav ul {{ padding-left: 1.2rem; }}
  @media (max-width: 640px) {{
    .prose thead {{ display: none; }}
    .prose tr {{ display: block; border-bottom: 1px solid #dde3ea; padding: .5rem 0; }}
    .prose td {{ display: block; border: 0; padding: .1rem 0; }}
  }}
</style>
</head>
<body>
{body}
</body>
</html>
"""
