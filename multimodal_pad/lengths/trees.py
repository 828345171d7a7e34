"""Trees of arrays, as targets are: an array, or dicts of them in dicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

Tree = Any
"""An array, or a dict of trees by name; or None, where there is none."""


def map_tree(function: Callable[..., Any], tree: Tree) -> Tree:
    """Return the tree with ``function(leaf)`` for each leaf; None stays None.

    >>> map_tree(len, {"emotion": [1, 2], "speaker": {"age": [3]}})
    {'emotion': 2, 'speaker': {'age': 1}}
    """
    if isinstance(tree, Mapping):
        return {name: map_tree(function, branch) for name, branch in tree.items()}
    return None if tree is None else function(tree)


def map_of_modalities(function: Callable[[str, Any], Any], trees: Mapping[str, Tree] | None) -> dict[str, Tree] | None:
    """Return the trees of some modalities with ``function(modality, leaf)`` for each leaf; None stays None.

    >>> map_of_modalities(lambda name, leaf: f"{leaf} of {name}", {"text": {"tag": 1}, "audio": 2})
    {'text': {'tag': '1 of text'}, 'audio': '2 of audio'}
    """
    return None if trees is None else {name: map_tree(partial(function, name), tree) for name, tree in trees.items()}


def named_leaves(tree: Tree, name: str) -> dict[str, Any]:
    """Return the leaves by their places, as errors name them; none for None.

    >>> named_leaves({"emotion": 1, "speaker": {"age": 2}}, "'targets'")
    {"'targets'['emotion']": 1, "'targets'['speaker']['age']": 2}
    """
    if not isinstance(tree, Mapping):
        return {} if tree is None else {name: tree}
    return {
        where: leaf for key, branch in tree.items() for where, leaf in named_leaves(branch, f"{name}[{key!r}]").items()
    }


def leaves_of(tree: Tree) -> list[Any]:
    """Return the leaves in their order."""
    if isinstance(tree, np.ndarray):  # the usual case first
        return [tree]
    if isinstance(tree, Mapping):
        return [leaf for branch in tree.values() for leaf in leaves_of(branch)]
    return [] if tree is None else [tree]
