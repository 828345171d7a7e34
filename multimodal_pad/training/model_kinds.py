"""Models that are not of Flax NNX: what they are, and what to do with them."""

from __future__ import annotations

from typing import Any

from flax import nnx

from multimodal_pad.errors import TrainingError

_OWN_LOOP = "the page 'Loops of your own' of the documentation has a loop of 20 lines for it, over the same batches"


def check_is_nnx(model: Any) -> None:
    """Raise a TrainingError that names the kind of model, and what to do, unless it is an ``nnx.Module``.

    >>> check_is_nnx(nnx.Linear)
    Traceback (most recent call last):
    multimodal_pad.errors.TrainingError: got the class Linear for the model, which is to be an nnx.Module; make one of \
it: Linear(..., rngs=nnx.Rngs(0))
    """
    if not isinstance(model, nnx.Module):
        what, instead = _described(model)
        raise TrainingError(f"got {what} for the model, which is to be an nnx.Module; {instead}")


def _described(model: Any) -> tuple[str, str]:
    """Return the kind of model, and what to do."""
    if isinstance(model, type):
        return f"the class {model.__name__}", f"make one of it: {model.__name__}(..., rngs=nnx.Rngs(0))"
    # By the names of modules: none of these libraries needs to be installed, nor is it imported for this.
    bases = [base.__module__ for base in type(model).__mro__]
    name = type(model).__name__
    if any(base.startswith("flax.linen") for base in bases):
        return f"the Linen module {name}", (
            "where nothing in it depends on a training mode and it has no batch statistics, "
            f"nnx.bridge.ToNNX(module, rngs=nnx.Rngs(0)).lazy_init(batch) makes one of it; for all others {_OWN_LOOP}"
        )
    if any(base.partition(".")[0] == "equinox" for base in bases):
        return f"the Equinox module {name}", _OWN_LOOP
    if any(base.partition(".")[0] == "torch" for base in bases):
        return f"the PyTorch module {name}", (
            "JAX can't differentiate it; iterate over the batcher in a loop of PyTorch's own, which takes the arrays "
            "by torch.from_numpy"
        )
    if callable(model) and hasattr(model, "__name__"):
        return f"the function {model.__name__}", (
            f"put its parameters into a module as nnx.Param and call it there, or keep it: {_OWN_LOOP}"
        )
    return f"an object of type {name}", "write the model as one, with its parameters as nnx.Param"
