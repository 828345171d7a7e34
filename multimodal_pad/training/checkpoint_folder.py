"""The contents of one checkpoint: arrays by name, and a record with checksums of them."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from multimodal_pad.errors import TrainingError

STATE, RECORD = "state", "record"
"""The two items of a checkpoint, as Orbax names their folders."""

_FORMAT = 2
"""Version of the record and of the names of arrays. Checkpoints of format 1 had no format, and numbers for names."""


class DamageError(Exception):
    """The reason why a checkpoint is not as it was written."""


class NamedArray(NamedTuple):
    """An array of a state.

    Attributes:
        name: its place as Python writes it: ``['params']['head']['kernel']``.
        path: its place in the nested dicts that are stored: ``("params", "head", "kernel")``.
        array: its value.
    """

    name: str
    path: tuple[str, ...]
    array: Any


def named_arrays(state: Any) -> list[NamedArray]:
    """Return the arrays of a pytree, and where they are in it.

    Raises:
        TrainingError: no arrays, something else among them, two of one name, or one that no single process has whole.
    """
    leaves = [
        NamedArray(jax.tree_util.keystr(path), tuple(_key(entry) for entry in path) or (STATE,), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
    if not leaves:
        raise TrainingError("got a state without arrays; there is nothing to save or to restore")
    paths = [leaf.path for leaf in leaves]
    if len(set(paths)) < len(paths):
        twice = next(leaf.name for leaf in leaves if paths.count(leaf.path) > 1)
        raise TrainingError(f"state{twice} has the name of another array; give its node's children names that differ")
    for name, _, leaf in leaves:
        if not isinstance(leaf, jax.Array | np.ndarray):
            raise TrainingError(
                f"state{name} is a {type(leaf).__name__}; a state is of jax and numpy arrays, so keep it in the record"
            )
        numbers = jnp.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool
        if not numbers or not leaf.dtype.isnative or leaf.size == 0:
            raise TrainingError(
                f"state{name} is {leaf.dtype}{list(leaf.shape)}; arrays must hold at least one number, in the byte "
                "order of this machine (keep a random key as jax.random.key_data(key))"
            )
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            raise TrainingError(
                f"state{name} is spread over processes ({leaf.sharding}); only arrays that each process has whole are "
                "saved, so replicate it"
            )
    return leaves


def array_copies(state: Any) -> list[NamedArray]:
    """Return copies of the arrays of a state that no later step can change.

    On CPU a view would be of the device's buffer, which the next step may be given to write into.
    """
    return [leaf._replace(array=np.array(leaf.array, copy=True, order="C")) for leaf in named_arrays(state)]


def nested(leaves: Iterable[tuple[tuple[str, ...], Any]]) -> dict[str, Any]:
    """Return nested dicts of values by their paths.

    >>> nested([(("a", "b"), 1), (("c",), 2)])
    {'a': {'b': 1}, 'c': 2}
    """
    tree: dict[str, Any] = {}
    for path, value in leaves:
        inner = tree
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return tree


def make_record(copies: Sequence[NamedArray], record: Mapping[str, Any], loss: float | None) -> dict:
    """Make the JSON beside the arrays: the caller's record, the loss, and checksums of each array and of the whole.

    Raises:
        TrainingError: a value that would not come back from JSON as it is (names its key).
    """
    for key, value in record.items():
        try:
            same = isinstance(key, str) and json.loads(json.dumps(value, allow_nan=False)) == value
        except (TypeError, ValueError):
            same = False
        if not same:
            raise TrainingError(
                f"record[{key!r}] would not come back from JSON as it is: {value!r:.200}; use dicts with str keys, "
                "lists, str, int, finite float, bool and None, and keep arrays in the state"
            )
    leaves = [
        {
            "name": name,
            "path": list(path),
            "shape": list(array.shape),
            "dtype": str(array.dtype),
            "crc32": _checksum(array),
        }
        for name, path, array in copies
    ]
    content = {"format": _FORMAT, "leaves": leaves, "loss": loss, "record": dict(record)}
    return {"content": content, "crc32": _json_checksum(content)}


def read_record(folder: Path) -> dict[str, Any]:
    """Read a checkpoint's record, with keys ``leaves``, ``loss`` and ``record``.

    Raises:
        DamageError: it is not what was written.
        TrainingError: it was written by another version of this package, in another format.
    """
    saved = _load(ocp.JsonCheckpointHandler(), folder / RECORD, ocp.args.JsonRestore())
    try:
        content, checksum = saved["content"], saved["crc32"]
    except (KeyError, TypeError) as error:
        raise DamageError(f"{folder.name}/{RECORD} is not a record of this package") from error
    if _json_checksum(content) != checksum:
        raise DamageError(f"{folder.name}/{RECORD} has changed since it was written")
    if content.get("format") != _FORMAT:
        raise TrainingError(
            f"the checkpoint {folder} is of format {content.get('format', 1)}, and this version of multimodal_pad "
            f"reads format {_FORMAT}, in which arrays have names; go on with the version that wrote it, or name "
            "another folder"
        )
    return content


def read_state(folder: Path, content: Mapping[str, Any], like: Any = None) -> Any:
    """Read the arrays of a checkpoint, as ``like`` has its own, or in nested dicts by name; compiles nothing.

    Raises:
        TrainingError: they have other names, shapes or dtypes than those of ``like``.
        DamageError: they are not what was written.
    """
    leaves = content["leaves"]
    wanted = None if like is None else check_arrays(folder, content, like)
    handler = array_handler(ocp.options.MultiprocessingOptions())
    saved = _load(handler, folder / STATE, ocp.args.PyTreeRestore())
    arrays = []
    for leaf in leaves:
        array = saved
        for key in leaf["path"]:
            array = array.get(key) if isinstance(array, dict) else None
        if not isinstance(array, np.ndarray):
            raise DamageError(f"state{leaf['name']} is missing")
        described = list(array.shape), str(array.dtype), _checksum(array)
        if described != (leaf["shape"], leaf["dtype"], leaf["crc32"]):
            raise DamageError(f"state{leaf['name']} has changed since it was written")
        arrays.append(array)
    if wanted is None:
        return nested((tuple(map(_unquoted, leaf["path"])), array) for leaf, array in zip(leaves, arrays, strict=True))
    placed = [_placed(array, leaf.array) for array, leaf in zip(arrays, wanted, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(like), placed)


def check_arrays(folder: Path, content: Mapping[str, Any], like: Any) -> list[NamedArray]:
    """Return the arrays of ``like``, after a check that the checkpoint's have the same names, shapes and dtypes.

    Raises:
        TrainingError: they differ; the first difference is named.
    """
    wanted = named_arrays(like)
    there = {leaf["name"]: (tuple(leaf["shape"]), leaf["dtype"]) for leaf in content["leaves"]}
    check_alike(f"the checkpoint {folder}", there, {leaf.name: leaf.array for leaf in wanted})
    return wanted


def array_handler(processes: ocp.options.MultiprocessingOptions) -> ocp.PyTreeCheckpointHandler:
    """Return Orbax's handler of arrays, which copies nothing a second time and compresses nothing.

    Floats hardly get smaller, and writing them takes longer.
    """
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, _ArrayFiles(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),  # not used; Orbax warns where it is absent
    )
    return ocp.PyTreeCheckpointHandler(
        use_compression=False, multiprocessing_options=processes, type_handler_registry=registry
    )


class _ArrayFiles(ocp.type_handlers.NumpyHandler):
    """A reader that waits for all arrays where one can't be read: Orbax's own leaves reads behind with tracebacks."""

    async def deserialize(
        self,
        infos: Sequence[ocp.type_handlers.ParamInfo],
        args: Sequence[ocp.RestoreArgs] | None = None,
    ) -> Sequence[np.ndarray]:
        read, args = super().deserialize, args or [ocp.RestoreArgs()] * len(infos)
        reads = [read([info], [arg]) for info, arg in zip(infos, args, strict=True)]
        results = await asyncio.gather(*reads, return_exceptions=True)
        arrays = []
        for result in results:
            if isinstance(result, BaseException):
                raise result
            arrays += result
        return arrays


def _load(handler: ocp.CheckpointHandler, folder: Path, args: ocp.args.CheckpointArgs) -> Any:
    """Read with Orbax, in this process alone; its errors at damaged files are of any kind."""
    alone = ocp.options.MultiprocessingOptions(jax.process_index(), {jax.process_index()})
    try:
        with ocp.Checkpointer(handler, multiprocessing_options=alone) as reader:
            return reader.restore(folder, args=args)
    except Exception as error:
        raise DamageError(f"{folder.parent.name}/{folder.name} can't be read: {error!s:.200}") from error


def check_alike(what: str, there: Mapping[str, tuple[tuple[int, ...], str]], arrays: Mapping[str, Any]) -> None:
    """Raise a TrainingError that names the first difference between what there is and arrays of this training."""
    here = {name: (tuple(x.shape), str(x.dtype)) for name, x in arrays.items()}
    for name in [*here, *there]:
        if here.get(name) != there.get(name):
            got, has = (f"{x[1]}{list(x[0])}" if x else "nothing" for x in (there.get(name), here.get(name)))
            raise TrainingError(
                f"{what} has {got} at state{name}, where this training has {has}; it is of another "
                "model or optimizer: resume with those it was saved with, or name another folder"
            )


def _key(entry: Any) -> str:
    """Quote the key of one level in the stored nested dicts: Orbax puts dots between them, and NumPy slashes."""
    return quote(jax.tree_util.keystr((entry,), simple=True), safe=" ").replace(".", "%2E") or "%"


def _unquoted(key: str) -> str:
    """Return the key that :func:`_key` quoted."""
    return "" if key == "%" else unquote(key)


def _placed(array: np.ndarray, like: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    if isinstance(like, np.ndarray):
        return array
    if not like.committed:  # committed to a device, it would need another program of a jitted function
        return jax.device_put(array)
    return jax.make_array_from_callback(array.shape, like.sharding, lambda index: array[index])


def _checksum(array: np.ndarray) -> int:
    return zlib.crc32(array.reshape(-1).view(np.uint8).data)


def _json_checksum(content: Any) -> int:
    return zlib.crc32(json.dumps(content, sort_keys=True).encode())
