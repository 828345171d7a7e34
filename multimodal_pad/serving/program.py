"""The program of a predictor: a pure function of a model's arrays and a batch, and a description of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
from flax import nnx

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Batch
from multimodal_pad.training.described import describe_model
from multimodal_pad.training.state import Arrays, take_apart


@dataclass(frozen=True, eq=False)
class Program:
    """A function ``(leaves, batch) -> outputs``, and the arrays it takes.

    Attributes:
        predict: pure; another function for each call of :attr:`anew`.
        leaves: the arrays of the model, on the default device.
        anew: makes another function of the same effect, of which JAX has traced nothing yet; None where the program is
            an exported one.
        arrays: ``{"params": ..., "rest": ...}`` in nested dicts by name, on the host; None as above.
        model: a description of the model, as JSON values; None as above.
    """

    predict: Callable[[Any, Batch], Any]
    leaves: list[Any]
    anew: Callable[[], Callable[[Any, Batch], Any]] | None = None
    arrays: dict[str, Arrays] | None = None
    model: dict[str, Any] | None = None


def program_of(model: Any) -> Program:
    """Return the program of an NNX model in evaluation mode, with copies of its arrays.

    Raises:
        PaddingError: the model is no NNX module.
        TrainingError: a model without parameters.
    """
    if not isinstance(model, nnx.Module):
        raise PaddingError(
            f"got a {type(model).__module__}.{type(model).__qualname__} for the model; give a flax.nnx.Module that is "
            "called as model(batch)"
        )
    structure, params, rest = take_apart(model)
    leaves, tree = jax.tree.flatten((params, rest))

    def anew() -> Callable[[Any, Batch], Any]:
        def predict(leaves: Any, batch: Batch) -> Any:
            batch.layout.check_alone(batch)
            return structure.evaluating(*jax.tree.unflatten(tree, leaves))(batch)

        return predict

    arrays = {"params": params, "rest": rest}
    return Program(anew(), jax.device_put(leaves), anew, arrays, describe_model(model))
