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
else:  # without locks, leftovers of a killed run can't be told from files of a running one
    fcntl = None

_ASIDE = re.compile(r"\.multimodal_pad-[0-9a-f]{16}\.part")
"""Names while they are written; they leave room for any name that file systems take."""

_swept: set[str] = set()  # folders, by this process


@contextmanager
def write_folder(out: Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``out``, renamed to it when the block ends well, else removed.

    Its contents are on the disk before it is renamed, so that it is whole even where the power fails. Leftovers of
    a killed run beside ``out`` are removed.

    Raises:
        FileExistsError: ``out`` is there already.
        PaddingError: no folder can be made beside it.
        OSError: a file can't be written in the block.
    """
    if os.path.lexists(out):
        raise FileExistsError(f"{out} exists; name another folder, so that nothing is overwritten")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(out.parent)
        private, lock = _locked(out.parent, folder=True)
    except OSError as error:
        raise PaddingError(f"{out}: can't be written ({error.strerror}); name another folder") from None
    folder = private / out.name  # with the rights of the user's umask
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
    them is the last. The file has the rights of the user's umask. Leftovers of a killed run beside it are
    removed.

    Raises:
        FileExistsError: there is something other than a file: a link, a folder, a device.
        OSError: the file can't be written; the old one stays as it was.
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
    """Raise a FileExistsError where something other than a file would be replaced: a link, a folder, a device."""
    try:
        mode = out.lstat().st_mode
    except FileNotFoundError:
        return
    kinds = {stat.S_IFLNK: "a link", stat.S_IFDIR: "a folder"}
    if not stat.S_ISREG(mode):
        kind = kinds.get(stat.S_IFMT(mode), "a device, pipe or socket")
        raise FileExistsError(f"{out} is {kind}, and only files are replaced; name another file")


def _locked(parent: Path, *, folder: bool) -> tuple[Path, int]:
    """Make a file, or a folder, with a fresh name; return it and its handle, which is locked while it is open.

    The system unlocks the files of a process that ends in whatever way, so unlocked ones are leftovers.
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
        with suppress(OSError):  # a file system without locks, on which nothing is taken for a leftover either
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_at(path, handle):
            return path, handle
        os.close(handle)  # another process has found it before it was locked


def _remove_leftovers(parent: Path) -> None:
    """Remove leftovers of killed runs in a folder: what is written aside and not locked.

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
    """Return whether a path still leads to the file or folder of an open handle."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _sync(folder: Path) -> None:
    """Write all contents of a folder through to the disk.

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
    """Write the names in a folder through to the disk, where its file system can do so."""
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
