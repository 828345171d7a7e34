"""Names lead to where they are documented, under whichever of their paths they are called.

A docstring names what is in its module, ``:class:`ShapePlan```, or gives the path of a definition that is
documented where it is passed on. A page links to ``api/planner.md#multimodal_pad.ShapePlan``, as on a code host.
"""

import inspect
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

ROOT = "multimodal_pad"
ALONE = {"class", "data", "exception", "function"}
"""Kinds of objects that their last name is enough for; a method needs its class."""


def find_name(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element
) -> nodes.Node | None:
    """Link a name to the one documented object that is called so; what is not on the site stays plain code."""
    parts = node["reftarget"].split(".")
    foreign = len(parts) > 1 and parts[0] != ROOT and parts[0].islower()
    if node.get("refdomain") != "py" or foreign:
        return None
    kept = parts[-2:] if len(parts) > 1 and parts[-2][:1].isupper() else parts[-1:]
    found = {
        (entry.docname, entry.node_id)
        for path, entry in env.domains.python_domain.objects.items()
        if path.split(".")[-len(kept) :] == kept and (len(kept) > 1 or entry.objtype in ALONE)
    }
    if len(found) != 1:
        return None
    page, place = found.pop()
    return make_refnode(app.builder, node.get("refdoc", env.docname), page, place, shown)


def name_anchors(app: Sphinx, doctree: nodes.document) -> None:
    """Let pages link to names as they link to headings."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for signature in doctree.findall(addnodes.desc_signature):
        for place in signature["ids"]:
            slugs.setdefault(place, (signature.line or 0, place, place))


def leave_values(app: Sphinx, kind: str, name: str, value: Any, skip: bool, options: Any) -> bool | None:
    """Leave out fields of named tuples and functions that are defaults: their class documents them as attributes."""
    del app, kind, name, skip, options
    field = (getattr(value, "__doc__", None) or "").startswith("Alias for field number")
    default = inspect.isfunction(value) and value.__qualname__ == value.__name__
    return True if field or default else None


def setup(app: Sphinx) -> dict[str, Any]:
    """Take part when docstrings and pages are read and links are made."""
    app.connect("autodoc-skip-member", leave_values)
    app.connect("doctree-read", name_anchors)
    app.connect("missing-reference", find_name)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
