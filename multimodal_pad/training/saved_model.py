"""A model of a checkpoint, without the data and the optimizer that it was trained with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import jax
from flax import nnx

from multimodal_pad.errors import TrainingError
from multimodal_pad.training.checkpoint import Checkpoints
from multimodal_pad.training.checkpoint_folder import NamedArray, check_alike, named_arrays
from multimodal_pad.training.described import MADE_OF
from multimodal_pad.training.identity import IDENTITY, STRUCTURE, check_structure, describe_structure
from multimodal_pad.training.state import take_apart

Model = TypeVar("Model", bound=nnx.Module)


def restore_model(checkpoints: Checkpoints, model: Model, *, best: bool = True) -> Model:
    """Read a model from the last whole checkpoint that :func:`~multimodal_pad.training.fit` saved; compiles nothing.

    Args:
        checkpoints: of the training.
        model: one made like the model in training; it is read, not changed. Its values don't matter.
        best: take the best epoch so far, where the training evaluates or has ``eval_params``, whose parameters these
            are (before the end of the first epoch, the initial values); else, and where it has neither, take the
            trained parameters of the last step.

    Returns:
        Another model with the parameters and all other variables of the checkpoint, in evaluation mode.

    Raises:
        TrainingError: there is no checkpoint, it is not one of ``fit``, it is of another model (names the first
            difference), or as :meth:`Checkpoints.restore`.

    Warns:
        CheckpointWarning: a checkpoint is damaged, and skipped.

    >>> import tempfile
    >>> from multimodal_pad import BucketBatcher, Ladder
    >>> from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
    >>> from multimodal_pad.training import fit
    >>> samples = [{"text": [1] * (1 + i % 3), "targets": i % 2} for i in range(8)]
    >>> config = TransformerConfig({"text": ModalityConfig(vocabulary_size=3)}, num_outputs=2, d_model=8)
    >>> batcher = BucketBatcher(samples, Ladder({"text": [4]}), batch_size=4)
    >>> with tempfile.TemporaryDirectory() as folder, Checkpoints(folder) as checkpoints:
    ...     model = MultimodalTransformer(config, rngs=nnx.Rngs(0))
    ...     trained = fit(model, batcher, epochs=1, checkpoints=checkpoints, progress=False).model
    ...     restored = restore_model(checkpoints, MultimodalTransformer(config, rngs=nnx.Rngs(1)))
    >>> bool((restored.head_output.kernel[...] == trained.head_output.kernel[...]).all())
    True
    """
    saved = checkpoints.restore()
    if saved is None:
        raise TrainingError(f"got {checkpoints.directory}, which has no checkpoint; name the folder of a training")
    state = saved.state
    found = state["best"] if best and "best" in state else {name: state.get(name, {}) for name in ("params", "rest")}
    if not found.get("params"):
        raise TrainingError(
            f"the checkpoint of step {saved.step} in {checkpoints.directory} has no 'params'; restore what fit saved"
        )
    structure, params, rest = take_apart(model)
    wanted = {"params": params, "rest": rest}
    there, here = ({_name(x): x.array for x in named_arrays(tree)} for tree in (found, wanted))
    check_alike(
        f"the checkpoint of step {saved.step} in {checkpoints.directory}",
        {name: (x.shape, str(x.dtype)) for name, x in there.items()},
        here,
    )
    check_restored(saved.record, model, f"the checkpoint of step {saved.step} in {checkpoints.directory}")
    return structure.model(*_filled(wanted, there))


def check_restored(record: Mapping[str, Any], model: nnx.Module, where: str) -> None:
    """Raise a TrainingError where a record describes another model; older records have no description."""
    there = record.get(MADE_OF, {}).get("model", {}).get(STRUCTURE)
    if there is not None:
        libraries = record.get(IDENTITY, {}).get("libraries", {})
        check_structure(there, describe_structure(model), where, libraries, training=False)


def _filled(wanted: dict[str, Any], arrays: dict[str, Any]) -> tuple[Any, Any]:
    """Return ``params`` and ``rest`` with the structure of ``wanted`` and these arrays, by name."""
    values = [arrays[_name(x)] for x in named_arrays(wanted)]
    filled = jax.tree.unflatten(jax.tree.structure(wanted), values)
    return filled["params"], filled["rest"]


def _name(leaf: NamedArray) -> str:
    """Return the stored name of an array, in which numbers of a list are strings."""
    return "".join(f"[{key!r}]" for key in leaf.path)
