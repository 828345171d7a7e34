"""The site loads nothing from elsewhere: a page that would is an error."""

import re
from typing import Any

from mkdocs.exceptions import PluginError

_LOADED = re.compile(
    r"""<(?:script|img|iframe|source|video|audio|embed)\b[^>]*?\ssrc=["']?(?:https?:)?//[^"'\s>]*"""
    r"""|<link\b[^>]*?\shref=["']?(?:https?:)?//[^"'\s>]*|@import[^;]*//[^;]*|<pre class="mermaid">""",
    re.IGNORECASE,
)


def on_post_page(output: str, **_: Any) -> None:
    """Look at a page as it will be written."""
    if found := _LOADED.search(output):
        raise PluginError(f"a page would load something from elsewhere: {found[0]}")
