"""One decision in several processes of one training."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax._src import distributed

from multimodal_pad.errors import TrainingError

_PATIENCE = 600
"""Seconds that a process waits for a decision of the first one, which may read files for it."""

_DECISIONS: dict[str, Iterator[int]] = {}


def told_by_the_first(subject: str, decide: Callable[[], Any]) -> Any:
    """Return a decision of the first process (a JSON value), or raise its error, in all processes.

    It goes through JAX's coordinator, as a broadcast between devices would have to be compiled. All processes call
    this for the same subjects, in the same order.

    Raises:
        TrainingError: in the others, where the first one meets an error; in all, where they were not connected.
    """
    if jax.process_count() == 1:
        return decide()
    number = next(_DECISIONS.setdefault(subject, itertools.count()))
    key, client = f"multimodal_pad/{subject}/{number}", distributed.global_state.client
    if client is None:
        raise TrainingError(
            f"got {jax.process_count()} processes that are not connected; call jax.distributed.initialize() first"
        )
    if jax.process_index() > 0:
        told = json.loads(client.blocking_key_value_get(key, _PATIENCE * 1000))
        if "error" in told:
            raise TrainingError(told["error"])
        return told["value"]
    try:
        value = decide()
    except Exception as error:
        client.key_value_set(key, json.dumps({"error": str(error)}))
        raise
    client.key_value_set(key, json.dumps({"value": value}))
    return value
