"""Entries of JAX's persistent compilation cache: written whole, read whole or not at all.

Everything here builds on private names of JAX. Where one of them is missing the import fails, and
:func:`~multimodal_pad.compiling.cache.write_whole_entries` leaves JAX's cache as it is.
"""

from __future__ import annotations

from pathlib import Path

from jax._src.compilation_cache import LRUCache, decompress_executable  # type: ignore[reportPrivateImportUsage]
from jax._src.lru_cache import _ATIME_SUFFIX, _CACHE_SUFFIX

from multimodal_pad.output import write_file


class WholeEntries(LRUCache):
    """JAX's cache folder, safe for several threads and processes, and for entries that are damaged.

    JAX writes an entry in place, so that others may read half of it, and keeps what is there already, damaged or
    not. Here an entry is written aside and renamed, and takes the place of an older one: JAX writes only what it has
    compiled, so the older one could not be read, or is the same program, compiled at the same time. Remote folders
    (``gs://...``) can't rename a file in one step and are left to JAX.
    """

    def get(self, key: str) -> bytes | None:
        """The compressed entry, or None where there is none or it does not decompress: it is compiled again."""
        value = super().get(key)
        # JAX decompresses it once more, at some 20 ms per MB. The check is here all the same: JAX would warn, which is
        # an error under `python -W error`, so that the entry would never be replaced.
        return value if value is None or self._remote or _decompresses(value) else None

    def put(self, key: str, value: bytes) -> None:
        """Keep a compressed entry, in place of what is there under its key."""
        if self._remote:
            super().put(key, value)
        elif not self.eviction_enabled:
            write_file(self._file(key, _CACHE_SUFFIX), value)
        else:  # all readers and writers hold a file lock
            self.lock.acquire(timeout=self.lock_timeout_secs)
            try:
                for suffix in (_CACHE_SUFFIX, _ATIME_SUFFIX):
                    self._file(key, suffix).unlink(missing_ok=True)
                super().put(key, value)  # evicts others to make room; the lock may be taken twice
            finally:
                self.lock.release()

    @property
    def _remote(self) -> bool:
        return "://" in str(self.path)

    def _file(self, key: str, suffix: str) -> Path:
        return Path(self.path) / f"{key}{suffix}"


def _decompresses(value: bytes) -> bool:
    try:
        decompress_executable(value)
    except Exception:  # noqa: BLE001  each library that JAX compresses with raises its own
        return False
    return True
