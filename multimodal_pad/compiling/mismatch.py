"""Why a compiled step does not take a state or a batch: the leaves that differ, by their paths."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

SHOWN_LEAVES = 5
"""Leaves to list; more that differ are only counted."""


class _Leaf(NamedTuple):
    """Shape and dtype; weak types and placement aside."""

    shape: tuple[int, ...]
    dtype: Any

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


def explain_mismatch(compiled: Any, state: Any, batch: Any) -> str | None:
    """Return how a state and a batch differ from those that a step was compiled for.

    Args:
        compiled: the result of ``jax.jit(...).lower(...).compile()`` for ``(state, batch)``.
        state: the state of the call.
        batch: the batch of the call.

    Returns:
        The leaves that differ, with their paths; None where no shape, dtype and structure does.

    >>> compiled = jax.jit(lambda state, batch: state).lower({"w": np.zeros(3, np.float32)}, np.zeros(2)).compile()
    >>> explain_mismatch(compiled, {"w": np.zeros(3, np.float16)}, np.zeros(2))
    "state['w'] goes in as float16[3] and was compiled as float32[3]"
    """
    (wanted_state, wanted_batch), _ = compiled.args_info
    returned = _returned_state(compiled.out_info, wanted_state)
    found = [
        *_differences("state", wanted_state, state, returned),
        *_differences("batch", wanted_batch, batch, {}),
    ]
    if not found:
        return None
    more = f"; and {len(found) - SHOWN_LEAVES:,} more" if len(found) > SHOWN_LEAVES else ""
    return "; ".join(found[:SHOWN_LEAVES]) + more


def _differences(root: str, wanted: Any, given: Any, returned: dict[str, _Leaf]) -> Iterator[str]:
    compiled, called = _leaves(root, wanted), _leaves(root, given)
    for path, leaf in compiled.items():
        if path not in called:
            yield f"{path} is missing, and was compiled as {leaf}"
        elif called[path] != leaf:
            back = returned.get(path)
            if back is not None and back == called[path]:
                yield f"{path} comes back from the step as {back} and goes in as {leaf}"
            else:
                yield f"{path} goes in as {called[path]} and was compiled as {leaf}"
    for path, leaf in called.items():
        if path not in compiled:
            back = " comes back from the step and" if path in returned else ""
            yield f"{path}{back} is {leaf}, and was not there when the step was compiled"
    if compiled.keys() == called.keys() and jax.tree.structure(wanted) != jax.tree.structure(given):
        yield f"{root} has the same leaves in another structure: {jax.tree.structure(given)}"


def _returned_state(out: Any, state: Any) -> dict[str, _Leaf]:
    """Return the leaves of the likely next state: the result or its first part, whichever has more of the state's."""
    parts = [out, *(out[:1] if isinstance(out, tuple | list) else ())]
    paths = _leaves("state", state).keys()
    return max((_leaves("state", part) for part in parts), key=lambda leaves: len(paths & leaves.keys()))


def _leaves(root: str, tree: Any) -> dict[str, _Leaf]:
    """Return the leaves of a tree by their paths, such as ``batch.features['text']``."""
    return {root + keystr(path): _leaf(x) for path, x in tree_flatten_with_path(tree)[0]}


def _leaf(x: Any) -> _Leaf:
    if not hasattr(x, "shape") or not hasattr(x, "dtype"):
        x = np.asarray(x)
    return _Leaf(tuple(x.shape), jax.dtypes.canonicalize_dtype(x.dtype, allow_extended_dtype=True))
