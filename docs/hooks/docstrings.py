"""Docstrings as they are written here, for a site that is written in Markdown.

Examples (``>>>``) become blocks of code. Roles, such as ``:class:`~multimodal_pad.ShapePlan```, become links, or plain
code where the site doesn't have what they name.
"""

import re
from typing import Any

import griffe

_EXAMPLE = re.compile(r"^( *)>>> .*(?:\n.*\S.*)*", re.MULTILINE)
_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):`(?:([^`<]+?)\s*<([^`>]+)>|(~?)([^`]+))`")


class ProjectDocstrings(griffe.Extension):
    """Rewrites the docstring of each object."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """When an object is loaded, its docstring is not parsed yet."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(lambda match: _link(match, obj), _fenced(obj.docstring.value))


def _fenced(text: str) -> str:
    """Examples as blocks of Python sessions."""
    return _EXAMPLE.sub(lambda match: f"{match[1]}```pycon\n{match[0]}\n{match[1]}```", text)


def _link(match: re.Match[str], obj: griffe.Object) -> str:
    """A role as a link that may lead nowhere."""
    shown, target = (match[1], match[2]) if match[2] else (match[4], match[4])
    if match[3]:
        shown = target.rpartition(".")[2]
    return f'<autoref identifier="{_full_path(target, obj)}" optional><code>{shown}</code></autoref>'


def _full_path(name: str, obj: griffe.Object) -> str:
    """The path of what a name means where the object stands."""
    first, dot, rest = name.partition(".")
    try:
        return obj.resolve(first) + dot + rest
    except griffe.NameResolutionError:
        return name
