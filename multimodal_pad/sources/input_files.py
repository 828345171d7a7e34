"""The input files of a corpus: their digests, and a check that they don't change while they are read."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.cache_files import digest_file
from multimodal_pad.sources.corpus import Progress

_FEW = 32
"""Most files of one folder with a line each in the manifest."""


class InputFiles:
    """The input files of some sources, each once, in their present state.

    Args:
        sources: sources; those that have ``inputs`` are read from these files.

    Raises:
        OSError: one of them is not there.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "corpus.pkl")
    ...     _ = path.write_bytes(b"as it was")
    ...     files = InputFiles([type("Source", (), {"inputs": [path]})])
    ...     files.check_unchanged()
    ...     _ = path.write_bytes(b"another")
    ...     files.check_unchanged()
    Traceback (most recent call last):
    multimodal_pad.errors.SourceError: ...corpus.pkl: changed while it was read; convert again when nothing writes to it
    """

    def __init__(self, sources: Iterable[Any]) -> None:
        paths = dict.fromkeys(Path(path) for source in sources for path in getattr(source, "inputs", ()))
        self._found = {path: _identity(path) for path in paths}

    def check_unchanged(self) -> None:
        """Raise a SourceError that names the first file that has changed."""
        for path, found in self._found.items():
            try:
                same = _identity(path) == found
            except OSError:
                same = False
            if not same:
                raise _changed(path)

    def digests(self, progress: Progress | None = None) -> list[dict[str, Any]]:
        """Return the SHA-256 of every file; one for many small files of a folder, by name and contents."""
        folders: dict[Path, list[Path]] = {}
        for path in self._found:
            folders.setdefault(path.parent, []).append(path)
        sizes = {path: identity[0] for path, identity in self._found.items()}
        found: list[dict[str, Any]] = []
        done, total = 0, sum(sizes.values())

        def tell(count: int) -> None:
            nonlocal done
            done += count
            if progress is not None:
                progress("SHA-256 of the input", done, total)

        def digest(path: Path) -> str:
            try:
                return digest_file(path, tell)
            except FileNotFoundError:
                raise _changed(path) from None

        for folder, files in folders.items():
            if len(files) <= _FEW:
                found += [{"path": printable(path), "bytes": sizes[path], "sha256": digest(path)} for path in files]
                continue
            whole = hashlib.sha256()
            for path in sorted(files):
                whole.update(os.fsencode(path.name) + f"\0{digest(path)}\n".encode())
            size = sum(sizes[path] for path in files)
            found.append({"path": printable(folder), "files": len(files), "bytes": size, "sha256": whole.hexdigest()})
        return found


def printable(path: Path) -> str:
    """Return a path as text that any file can hold, with bytes that are no UTF-8 written as escapes.

    >>> printable(Path("a\\udcff"))
    'a\\\\xff'
    """
    return os.fsencode(path).decode(errors="backslashreplace")


def _identity(path: Path) -> tuple[int, ...]:
    """Return size, time of the last change, and place on the disk."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_dev, found.st_ino


def _changed(path: Path) -> SourceError:
    return SourceError(f"{path}: changed while it was read; convert again when nothing writes to it")
