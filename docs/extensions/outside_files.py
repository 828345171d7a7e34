"""Pages outside docs/ that a page links to, such as reports in results/, open in the browser.

Sphinx copies every file that is linked to into the site, and has the browser save it.
"""

from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx


def open_pages(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Make links of the downloads of HTML files."""
    for download in list(doctree.findall(addnodes.download_reference)):
        if (name := download.get("filename", "")).endswith(".html"):
            uri = app.builder.get_relative_uri(docname, "index").removesuffix("index.html") + f"_downloads/{name}"
            download.replace_self(nodes.reference("", "", *download.children, internal=True, refuri=uri))


def setup(app: Sphinx) -> dict[str, Any]:
    """Change each page before it is written."""
    app.connect("doctree-resolved", open_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
