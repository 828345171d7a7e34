"""Programs for processes that don't have the model's code: exported by JAX, and called in batches of planned shapes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax import export as jax_export
from jax.extend.backend import get_backend

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import Batch, BatchShape
from multimodal_pad.output import write_folder
from multimodal_pad.serving.folders import (
    ARRAYS,
    Loaded,
    describe,
    loaded,
    read_arrays,
    read_description,
    write_arrays,
    write_description,
)
from multimodal_pad.serving.program import Program
from multimodal_pad.serving.running import PieceRunner
from multimodal_pad.serving.saving import EXPORTED

FORMAT = "multimodal_pad exported predictor"
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

OLDEST_GPU = (7, 5)
"""A compute capability: a program for NVIDIA GPUs has the attention of all GPUs from this one on."""


def export(predictor: PieceRunner, folder: Path, platforms: Sequence[str]) -> None:
    """Write the programs of a predictor to a new folder: see :meth:`Predictor.export`."""
    from multimodal_pad.models.attention_choice import AttentionDevice, lowering_for

    unknown = [platform for platform in platforms if platform not in PLATFORMS]
    if unknown or isinstance(platforms, str) or not platforms:
        raise PaddingError(f"got platforms={platforms!r}; choose some of {list(PLATFORMS)}")
    program = predictor.program
    if program.anew is None:
        raise PaddingError("got a predictor of an exported program; copy its folder, or export the model again")
    description, programs = describe(predictor), []
    with write_folder(folder) as made:
        arrays = write_arrays(made / ARRAYS, program.arrays)
        for platform in platforms:
            device = AttentionDevice(platform, OLDEST_GPU if platform == "cuda" else None)
            with lowering_for(device):
                predict = program.anew()
                for number, shape in enumerate(predictor.shapes):
                    name = f"{platform}-{number}.bin"
                    data = _exported(predict, program.leaves, predictor.batch_struct(shape), platform, shape)
                    (made / name).write_bytes(data)
                    programs.append(
                        {
                            "platform": platform,
                            "batch_size": shape.batch_size,
                            "lengths": dict(shape.lengths),
                            "file": name,
                            "sha256": hashlib.sha256(data).hexdigest(),
                        }
                    )
        write_description(made, EXPORTED, FORMAT, {**description, "arrays": arrays, "programs": programs})


def read_exported(folder: Path, options: Mapping[str, Any]) -> Loaded:
    """Read the programs in a folder: see :func:`load_exported`."""
    description = read_description(folder / EXPORTED, FORMAT)
    platform = this_platform()
    found: dict[tuple[int, tuple[tuple[str, int], ...]], Any] = {}
    try:
        arrays = read_arrays(folder / ARRAYS, description["arrays"])
        for each in description["programs"]:
            if each["platform"] == platform:
                key = (each["batch_size"], tuple(sorted(each["lengths"].items())))
                found[key] = _read(folder / each["file"], each["sha256"])
        platforms = sorted({each["platform"] for each in description["programs"]})
    except (KeyError, TypeError, AttributeError) as error:
        raise PaddingError(f"{folder / EXPORTED}: lacks or garbles {error}; export again") from None
    if not found:
        raise PaddingError(
            f"{folder}: exported for {', '.join(platforms)}, and JAX runs on {platform} here; export for that, too"
        )

    def predict(leaves: Any, batch: Batch) -> Any:
        shape = batch.shape
        return found[shape.batch_size, shape.lengths].call(leaves, jax.tree.leaves(batch))

    program = Program(predict, jax.device_put(list(arrays.values())))
    return loaded(program, description, folder / EXPORTED, options)


def this_platform() -> str:
    """Return JAX's default backend: ``"cpu"``, ``"cuda"``, ``"rocm"`` or ``"tpu"``."""
    backend = get_backend()
    if backend.platform not in ("gpu", "cuda", "rocm"):
        return backend.platform
    return "rocm" if "rocm" in backend.platform_version.lower() else "cuda"


def _exported(
    predict: Callable[[Any, Batch], Any], leaves: Any, struct: Batch, platform: str, shape: BatchShape
) -> bytes:
    """Export one program, of lists of arrays, so that it needs none of our classes."""
    flat, tree = jax.tree.flatten(struct)

    def flat_predict(leaves: Any, flat: Any) -> Any:
        return predict(leaves, jax.tree.unflatten(tree, flat))

    structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
    try:
        exported = jax_export.export(jax.jit(flat_predict), platforms=[platform])(structs, flat)
    except Exception as error:
        error.add_note(f"while the program was exported for {platform} and {shape}")
        raise
    if not _is_plain(jax.tree.unflatten(exported.out_tree, [0] * exported.out_tree.num_leaves)):
        raise PaddingError(
            "got a model whose outputs are no arrays, dicts, lists or tuples of such, which only its own code can "
            "read; give a dict"
        )
    try:
        return bytes(exported.serialize())
    except ImportError as error:
        raise _no_flatbuffers() from error


def _is_plain(tree: Any) -> bool:
    if type(tree) is dict:
        return all(isinstance(name, str) and _is_plain(value) for name, value in tree.items())
    return tree is None or type(tree) is int or (type(tree) in (list, tuple) and all(map(_is_plain, tree)))


def _read(path: Path, sha256: str) -> Any:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise PaddingError(f"{path}: no such file; export again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise PaddingError(f"{path}: has changed since it was written; export again")
    try:
        return jax_export.deserialize(bytearray(data))
    except ImportError as error:
        raise _no_flatbuffers() from error


def _no_flatbuffers() -> PaddingError:
    return PaddingError("JAX needs the package flatbuffers for exported programs: pip install 'multimodal-pad[export]'")
