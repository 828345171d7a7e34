"""Checks of a flat cache against its manifest: the quick ones at every opening, and those of all bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from multimodal_pad.errors import SourceError
from multimodal_pad.lengths.samples import TARGETS
from multimodal_pad.reading import file_size
from multimodal_pad.sources.cache_files import IDS, MANIFEST, OFFSETS, array_file, digest_file
from multimodal_pad.sources.corpus import Progress
from multimodal_pad.sources.flat_arrays import FlatArrays
from multimodal_pad.sources.manifest import AGAIN, digest_manifest, has_digests, require_manifest


def check_file(
    path: Path, said: Mapping[str, Any], *, whole: bool = True, tell: Callable[[int], None] | None = None
) -> None:
    """Check a file against its entry in the manifest.

    Args:
        path: of the file.
        said: the entry: ``bytes`` and ``sha256``.
        whole: whether all of it is read, or only its size is compared.
        tell: called with the size of each block that is read.

    Raises:
        SourceError: it is not there, or not what was written.
    """
    try:
        size = file_size(path)
    except FileNotFoundError:
        raise SourceError(f"{path}: no such file, and the manifest says that it is there; {AGAIN}") from None
    if size != said["bytes"]:
        raise SourceError(f"{path}: has {size:,} bytes, and the manifest says {said['bytes']:,}; {AGAIN}")
    if whole and digest_file(path, tell) != said["sha256"]:
        raise SourceError(f"{path}: is not what was written (its SHA-256 is not that of the manifest); {AGAIN}")


def check_files(folder: Path, said: Mapping[str, Any]) -> None:
    """Check the files of a split against the manifest, as far as that takes no time: sizes, and SHA-256 of offsets.

    Raises:
        SourceError: one is not what was written, or the manifest lacks it.
    """
    files = said.get("files")
    if files is None:  # of the first version
        return
    for name, facts in files.items():
        check_file(folder / name, facts, whole=name.endswith(f"{OFFSETS}.npy"))
    if array_file(IDS) not in files and (folder / array_file(IDS)).exists():
        raise SourceError(f"{folder / array_file(IDS)}: is there, and the manifest says nothing of it; {AGAIN}")


def check_arrays(folder: Path, arrays: FlatArrays, modalities: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Check number of samples, lengths, dtypes and shapes of a split against the manifest.

    Raises:
        SourceError: they differ.
    """
    count, longest = len(arrays.lengths), {name: row["max"] for name, row in said["lengths"].items()}
    if count != said["samples"] or arrays.lengths.maxima != longest:
        raise SourceError(
            f"{folder}: has {count:,} samples up to {arrays.lengths.maxima}, and the manifest says {said['samples']:,} "
            f"up to {longest}; {AGAIN}"
        )
    wanted = {name: (facts["dtype"], facts["feature_shape"]) for name, facts in modalities.items()}
    if said["targets"] is not None:
        wanted[TARGETS] = (said["targets"]["dtype"], said["targets"]["shape"])
    found = arrays.values if arrays.targets is None else {**arrays.values, TARGETS: arrays.targets}
    for name in wanted | found:
        has = None if name not in found else (str(found[name].dtype), list(found[name].shape[1:]))
        if has != wanted.get(name) or not found[name].flags.c_contiguous:
            what = "is not there" if has is None else f"holds {has[0]} of the shape {has[1]} per row"
            should = "nothing of it" if name not in wanted else "{} of the shape {}".format(*wanted[name])
            raise SourceError(f"{folder / array_file(name)}: {what}, and the manifest says {should}; {AGAIN}")


def verify_cache(folder: str | Path, progress: Progress | None = None) -> int:
    """Read all of a cache, and compare the SHA-256 of every file with the manifest, and of the manifest with itself.

    Returns:
        The number of files beside the manifest.

    Raises:
        SourceError: no cache, one that is not what was written (the file is named), or one of the first version, whose
            manifest has no digests.
        OSError: a file cannot be read.

    >>> import tempfile, numpy as np
    >>> from multimodal_pad.sources import convert
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = convert({"train": [{"audio": np.ones((3, 2), np.float32)}]}, folder + "/cache")
    ...     verify_cache(folder + "/cache")
    2
    """
    folder = Path(folder)
    manifest = require_manifest(folder)
    if not has_digests(manifest):
        raise SourceError(
            f"{folder}: its manifest is of version {manifest['version']}, which has no SHA-256 of the files; convert "
            f"it once more: multimodal-pad convert numpy_dir {folder} OUT"
        )
    if digest_manifest(manifest) != manifest["sha256"]:
        raise SourceError(f"{folder / MANIFEST}: is not what was written (nor is its SHA-256); {AGAIN}")
    files = {folder / name: facts for name, facts in manifest["files"].items()}
    for split, facts in manifest["splits"].items():
        files |= {folder / split / name: said for name, said in facts["files"].items()}
    done, total = 0, sum(said["bytes"] for said in files.values())

    def tell(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress("SHA-256 of the cache", done, total)

    for path, said in files.items():
        check_file(path, said, tell=tell)
    return len(files)
