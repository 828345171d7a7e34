"""The site loads nothing from elsewhere: a page that would is an error."""

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']?(?:https?:)?//[^"'\s>]*"""
    r"""|<link\b[^>]*?\shref=["']?(?:https?:)?//[^"'\s>]*|@import[^;]*//[^;]*""",
    re.IGNORECASE,
)


def check_pages(app: Sphinx, exception: Exception | None) -> None:
    """Look at all pages as they were written."""
    if exception is None:
        for page in sorted(Path(app.outdir).rglob("*.html")):
            if "_downloads" not in page.parts and (found := _LOADED.search(page.read_text(encoding="utf-8"))):
                raise ExtensionError(f"{page.name} would load something from elsewhere: {found[0]}")


def setup(app: Sphinx) -> dict[str, Any]:
    """Check after every build."""
    app.connect("build-finished", check_pages)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
