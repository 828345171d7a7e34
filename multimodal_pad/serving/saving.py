"""A predictor in a folder, and the model of a training's checkpoints as a predictor."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax import nnx

from multimodal_pad.errors import PaddingError
from multimodal_pad.output import write_folder
from multimodal_pad.serving.folders import (
    ARRAYS,
    Loaded,
    describe,
    filled,
    loaded,
    read_arrays,
    read_description,
    write_arrays,
    write_description,
)
from multimodal_pad.serving.running import PieceRunner
from multimodal_pad.training.described import MADE_OF, model_of
from multimodal_pad.training.identity import STRUCTURE, check_structure, describe_structure
from multimodal_pad.training.state import take_apart

SAVED, FORMAT = "predictor.json", "multimodal_pad predictor"
EXPORTED = "exported.json"


def save(predictor: PieceRunner, folder: Path) -> None:
    """Write a predictor to a new folder: see :meth:`Predictor.save`."""
    if predictor.program.arrays is None:
        raise PaddingError("got a predictor of an exported program, which has no model to save; copy its folder")
    description = describe(predictor)
    with write_folder(folder) as made:
        arrays = write_arrays(made / ARRAYS, predictor.program.arrays)
        write_description(made, SAVED, FORMAT, {"model": predictor.program.model, **description, "arrays": arrays})


def is_exported(folder: Path) -> bool:
    """Return whether a folder holds exported programs."""
    return (folder / EXPORTED).exists()


def read_saved(folder: Path, model: nnx.Module | None, *, best: bool, options: Mapping[str, Any]) -> Loaded:
    """Read the contents of a folder: see :meth:`Predictor.load`."""
    if not folder.is_dir():
        raise PaddingError(f"{folder}: no such folder; name that of a predictor or of a training")
    if not (folder / SAVED).exists():
        return _of_checkpoints(folder, model, best=best, options=options)
    description = read_description(folder / SAVED, FORMAT)
    try:
        made = model_of(description["model"]) if model is None else model
        described = description["arrays"]
    except (KeyError, PaddingError) as error:
        raise PaddingError(f"{folder / SAVED}: {error}") from None
    structure, params, rest = take_apart(made)
    tree = filled({"params": params, "rest": rest}, read_arrays(folder / ARRAYS, described), str(folder))
    there, libraries = description.get("model", {}).get(STRUCTURE), description.get("written_with", {})
    if there is not None:
        check_structure(there, describe_structure(made), f"the predictor in {folder}", libraries, training=False)
    return loaded(structure.model(tree["params"], tree["rest"]), description, folder / SAVED, options)


def _of_checkpoints(folder: Path, model: nnx.Module | None, *, best: bool, options: Mapping[str, Any]) -> Loaded:
    from multimodal_pad.training.checkpoint import Checkpoints  # Orbax takes a second to import
    from multimodal_pad.training.saved_model import restore_model

    records: list[dict[str, Any]] = []
    with Checkpoints(folder) as checkpoints:
        if checkpoints.restore(check=records.append) is None:
            raise PaddingError(
                f"{folder}: holds neither {SAVED} nor a checkpoint; name the folder of a predictor or of a training"
            )
        description = records[-1].get(MADE_OF)
        if description is None and (model is None or options.get("plan") is None):
            raise PaddingError(
                f"{folder}: its checkpoints don't say what the model was made of; give model=, one made like it, and "
                "plan="
            )
        description = description or {}
        try:
            made = model_of(description.get("model", {})) if model is None else model
        except PaddingError as error:
            raise PaddingError(f"{folder}: {error}") from None
        restored = restore_model(checkpoints, made, best=best)
    return loaded(restored, description, folder, options)
