"""Output that is there whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multimodal_pad.errors import PaddingError


@contextmanager
def write_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out``, renamed to it when the block ends well, else removed.

    What is in it is on the disk before it is renamed, so that it is whole even where the power fails.

    Raises:
        FileExistsError: ``out`` is there already.
        PaddingError: no folder can be made beside it.
        OSError: what the block writes can't be written.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists; name another folder, so that nothing is overwritten")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        private = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise PaddingError(f"{out}: can't be written ({error.strerror}); name another folder") from None
    folder = private / out.name  # one that the user's umask decides who may read
    try:
        folder.mkdir()
        yield folder
        _sync(folder)
        folder.rename(out)
        _sync_names(out.parent)
    finally:
        shutil.rmtree(private, ignore_errors=True)


def write_file(out: Path, data: bytes) -> None:
    """Write a file aside and rename it: readers find the old one or the new one, and never a part of it.

    What is there is replaced. Any number of threads and processes may write one file at the same time; one of them
    is the last. It is the user's umask that decides who may read the file.

    Raises:
        OSError: the file can't be written; what was there is left as it was.
    """
    aside = out.parent / f".{secrets.token_hex(8)}.part"  # a long name of `out` leaves no room for more
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)


def _sync(folder: Path) -> None:
    """See to it that all that is in a folder is on the disk.

    Raises:
        OSError: a file can't be written; it is named.
    """
    for place, _, files in os.walk(folder):
        for path in (Path(place, name) for name in files):
            try:
                _sync_one(path)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(path)) from None
        _sync_names(Path(place))


def _sync_names(folder: Path) -> None:
    """See to it that the names in a folder are on the disk, where its file system can say so."""
    with suppress(OSError):
        _sync_one(folder)


def _sync_one(path: Path) -> None:
    if os.name == "nt" or path.is_symlink():  # Windows takes no handle that only reads
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
