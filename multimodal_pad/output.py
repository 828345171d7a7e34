"""Output that is there whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from multimodal_pad.errors import PaddingError

if os.name == "posix":
    import fcntl
else:  # no lock tells there which runs are alive: what a killed one leaves is left
    fcntl = None

_ASIDE = re.compile(r"\.multimodal_pad-[0-9a-f]{16}\.part")
"""What is written aside; such a name leaves room for any name that file systems take."""

_swept: set[str] = set()  # folders, by this process


@contextmanager
def write_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out``, renamed to it when the block ends well, else removed.

    What is in it is on the disk before it is renamed, so that it is whole even where the power fails. What a run that
    was killed has left beside ``out`` is removed.

    Raises:
        FileExistsError: ``out`` is there already.
        PaddingError: no folder can be made beside it.
        OSError: what the block writes can't be written.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists; name another folder, so that nothing is overwritten")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out.parent)
        private, lock = _locked(out.parent, folder=True)
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
        os.close(lock)


def write_file(out: Path, data: bytes) -> None:
    """Write a file aside and rename it: readers find the old one or the new one, and never a part of it.

    A file that is there is replaced. Any number of threads and processes may write one file at the same time; one of
    them is the last. It is the user's umask that decides who may read the file. What a run that was killed has left
    beside it is removed.

    Raises:
        FileExistsError: there is something else than a file: a link, a folder, a device.
        OSError: the file can't be written; what was there is left as it was.
    """
    check_replaceable(out)
    _remove_leftovers(out.parent)
    aside, lock = _locked(out.parent, folder=False)
    try:
        with os.fdopen(lock, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            if os.name != "nt":  # where no open file can be renamed
                aside.replace(out)
        if os.name == "nt":
            aside.replace(out)
    finally:
        aside.unlink(missing_ok=True)


def check_replaceable(out: Path) -> None:
    """Raise a FileExistsError where something else than a file would be replaced: a link, a folder, a device."""
    try:
        mode = out.lstat().st_mode
    except FileNotFoundError:
        return
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder"}
    if not stat.S_ISREG(mode):
        kind = kinds.get(stat.S_IFMT(mode), "a device, pipe or socket")
        raise FileExistsError(f"{out} is {kind}, and only files are replaced; name another file")


def _locked(parent: Path, *, folder: bool) -> tuple[Path, int]:
    """Return a file, or a folder, with a name of its own, and its handle, which is locked for as long as it is open.

    The system lets go of the lock of a process that ends in whatever way, so that what is not locked is left over.
    """
    while True:
        path = parent / f".multimodal_pad-{secrets.token_hex(8)}.part"
        if folder:
            path.mkdir(mode=0o700)
            handle = os.open(path, os.O_RDONLY) if fcntl else os.open(os.devnull, os.O_RDONLY)
        else:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
        if fcntl is None:
            return path, handle
        with suppress(OSError):  # a file system without locks; there nothing is taken for left over either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(path, handle):
            return path, handle
        os.close(handle)  # another process has found it before it was locked


def _remove_leftovers(parent: Path) -> None:
    """Remove what runs that were killed have left in a folder: what is written aside and not locked.

    A folder is looked through once by each process.
    """
    place = str(parent.resolve())
    if fcntl is None or place in _swept:
        return
    _swept.add(place)
    with suppress(OSError), os.scandir(place) as entries:
        for entry in entries:
            if _ASIDE.fullmatch(entry.name) and not entry.is_symlink():
                _remove_leftover(Path(entry.path), folder=entry.is_dir(follow_symlinks=False))


def _remove_leftover(path: Path, *, folder: bool) -> None:
    with suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, handle) and os.fstat(handle).st_uid == os.getuid():
                shutil.rmtree(path, ignore_errors=True) if folder else path.unlink()
        finally:
            os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Return whether a path still leads to the file or folder that an open handle is of."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


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
