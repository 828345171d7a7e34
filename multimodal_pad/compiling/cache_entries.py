"""Entries of JAX's persistent compilation cache: written whole, read whole or not at all.

Everything here builds on private names of JAX. Where one of them is missing the import fails, and
:func:`~multimodal_pad.compiling.cache.write_whole_entries` leaves JAX's cache as it is.
"""

from __future__ import annotations

import hashlib
import itertools
import stat
from pathlib import Path

from jax._src.compilation_cache import LRUCache, decompress_executable  # type: ignore[reportPrivateImportUsage]
from jax._src.lru_cache import _ATIME_SUFFIX, _CACHE_SUFFIX

from multimodal_pad.output import write_file


class WholeEntries(LRUCache):
    """JAX's cache folder, made safe for several threads and processes, and for damaged entries.

    JAX writes an entry in place, so that others may read half of it, and keeps what is there already, damaged or
    not. Here an entry is written aside and renamed, and replaces an older one: JAX writes only what it has
    compiled, so the older one could not be read, or is the same program, compiled at the same time. A checksum of the
    entry and its key follows it, where JAX does not look: a damaged entry, or one copied to another key, is compiled
    again, without a warning. Remote folders (``gs://...``) can't rename a file in one step and are left to JAX.
    """

    def get(self, key: str) -> bytes | None:
        """Return the compressed entry, or None where there is none or it is damaged: it is compiled again."""
        if self._remote:
            return super().get(key)
        # Any error counts as damage: JAX would warn at every start, and under `python -W error` never replace it.
        try:
            value = super().get(key) if self._is_file(key) else None
        except OSError:
            return None
        return None if value is None else _checked(key, value)

    def put(self, key: str, value: bytes) -> None:
        """Keep a compressed entry, in place of another one under its key."""
        if self._remote:
            super().put(key, value)
            return
        value += _trailer(key, value)
        self._clear_folder(key)
        if not self.eviction_enabled:
            entry = self._file(key, _CACHE_SUFFIX)
            if entry.is_symlink() or not entry.is_file():  # which write_file doesn't replace, and JAX can't read
                entry.unlink(missing_ok=True)
            write_file(entry, value)
        else:  # all readers and writers take a file lock
            self.lock.acquire(timeout=self.lock_timeout_secs)
            try:
                for suffix in (_CACHE_SUFFIX, _ATIME_SUFFIX):
                    self._file(key, suffix).unlink(missing_ok=True)
                super().put(key, value)  # evicts others to make room; the lock may be taken twice
            finally:
                self.lock.release()
        self._close_to_others(key)

    @property
    def _remote(self) -> bool:
        return "://" in str(self.path)

    def _is_file(self, key: str) -> bool:
        """Return whether there is a file: no folder, and no pipe, which would be waited for."""
        try:
            return stat.S_ISREG(self._file(key, _CACHE_SUFFIX).stat().st_mode)
        except OSError:
            return False

    def _clear_folder(self, key: str) -> None:
        """Put a folder aside that has the name of an entry."""
        path = self._file(key, _CACHE_SUFFIX)
        if path.is_dir() and not path.is_symlink():
            names = (path.with_name(f"damaged-{number}-{key}") for number in itertools.count(1))
            path.rename(next(name for name in names if not name.exists()))

    def _close_to_others(self, key: str) -> None:
        """Take away the rights that a generous umask gives to others: a cache that they can write to is refused."""
        for suffix in (_CACHE_SUFFIX, _ATIME_SUFFIX):
            path = self._file(key, suffix)
            try:
                path.chmod(path.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))
            except OSError:
                continue  # there is none, or another process has evicted it

    def _file(self, key: str, suffix: str) -> Path:
        return Path(self.path) / f"{key}{suffix}"


_MARK = (0x184D2A50).to_bytes(4, "little") + (32).to_bytes(4, "little")
"""The header of a skippable frame of Zstandard with 32 bytes; zlib overlooks whatever lies behind its data."""


def _trailer(key: str, value: bytes) -> bytes:
    """Return the frame behind an entry, which holds its checksum."""
    return _MARK + hashlib.sha256(key.encode() + value).digest()


def _checked(key: str, value: bytes) -> bytes | None:
    """Return an entry without its checksum; None where that is wrong, or absent from data that don't decompress."""
    entry, trailer = value[: -len(_MARK) - 32], value[-len(_MARK) - 32 :]
    if trailer.startswith(_MARK):
        return entry if trailer == _trailer(key, entry) else None
    return value if _decompresses(value) else None  # written by JAX alone, or an older version


def _decompresses(value: bytes) -> bool:
    try:
        decompress_executable(value)
    except Exception:  # noqa: BLE001  each library that JAX compresses with raises its own
        return False
    return True
