"""JAX's persistent compilation cache in a folder that only its user can write to."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from multimodal_pad.errors import PaddingError


def use_compilation_cache(cache_dir: str | Path) -> Path:
    """Keep all programs compiled from here on in a folder, and read them from there at the next start.

    Call it first of all, or let :func:`~multimodal_pad.compiling.warm_up` do so. Every program is kept, small
    ones too, where JAX by itself leaves out what compiled in under a second; left out are programs that call back
    into Python. Of several processes only the first one writes. The folder grows without end, so
    delete it now and then: programs of other versions of JAX, other models and other shapes stay in it. It may
    be moved, and copied to machines of the same kind.

    It holds for the whole process. :class:`~multimodal_pad.compiling.CompileLog` reports what it saved.

    **What lies in the folder is run as code**, as it is. So the folder is made for its user alone, and refused where
    others can write to it or to a folder above it, or where one of its entries can be written by others, is theirs, or
    may have come from them before the folder was closed to them.

    Threads and processes may share the folder: an entry is written aside and renamed, so that readers never see half of
    it, and a damaged one is compiled again and replaced. Two processes that start at the same time both compile what
    is not there yet; each program is kept once.

    Args:
        cache_dir: a local folder; made where it is absent, with the folders above it.

    Returns:
        Its absolute path.

    Raises:
        PaddingError: not a folder, not a local one, or one that others can write to, or could when entries came there.
        OSError: it cannot be made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kept = use_compilation_cache(folder + "/programs").is_dir()
    ...     jax.config.update("jax_compilation_cache_dir", None)  # off again
    >>> kept
    True
    """
    if not str(cache_dir).strip():
        raise PaddingError("got an empty cache_dir; name a folder")
    if "://" in str(cache_dir):
        raise PaddingError(
            f"got cache_dir={str(cache_dir)!r}; who can write there can't be checked, so give a local folder (or trust "
            "it yourself: jax.config.update('jax_compilation_cache_dir', ...))"
        )
    folder = Path(cache_dir).expanduser().resolve()
    for missing in [path for path in (folder, *folder.parents) if not path.exists()][::-1]:
        missing.mkdir(mode=0o700, exist_ok=True)  # exist_ok: another process may be starting, too
    if not folder.is_dir():
        raise PaddingError(f"got cache_dir={str(folder)!r}, which is not a folder; name another")
    check_private(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_enable_compilation_cache", True)
    # XLA's own caches would have the path of the folder in every key, so that they could not be moved.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    write_whole_entries()
    compilation_cache.reset_cache()  # JAX reads the options once, at the first compilation
    return folder


def write_whole_entries() -> bool:
    """Make JAX write entries of its persistent compilation cache aside and rename them, and replace damaged ones.

    :func:`use_compilation_cache` and :func:`~multimodal_pad.compiling.warming.compile_all` call it, the latter for
    folders that JAX's own options name. It holds for the whole process, for any folder and all options of JAX's cache.

    Returns:
        Whether it holds; False with a version of JAX whose cache is built in another way and stays as it is.
    """
    try:
        # JAX's cache has no public hook. It takes its class from this name, now and after each reset_cache().
        from jax._src import compilation_cache as jax_cache

        from multimodal_pad.compiling.cache_entries import WholeEntries
    except ImportError:
        return False
    if jax_cache.LRUCache is not WholeEntries:  # type: ignore[reportPrivateImportUsage]
        jax_cache.LRUCache = WholeEntries  # type: ignore[reportPrivateImportUsage]
        compilation_cache.reset_cache()  # a cache of the old class may exist
    return True


def cache_in_use() -> bool:
    """Return whether JAX's options name a folder for the persistent compilation cache, and have it on."""
    options = jax.config
    return bool(options.jax_compilation_cache_dir and options.jax_enable_compilation_cache)  # type: ignore[attr-defined]


def check_private(folder: Path) -> None:
    """Raise a PaddingError where others can change what is in a folder, or may have. Only on POSIX systems.

    That is so where others can write to it, to one of its entries, or to a folder above it (and could replace it,
    but for the sticky bit), or own one of them, root excepted. Entries are checked even where the folder is closed
    now, since one that was left there earlier is there still. Of a link, the target is checked; a file
    with another name elsewhere, a hard link, is refused, since others may have chosen its content.
    """
    if os.name != "posix":
        return
    entries = sorted(folder.rglob("*"))
    linked = {Path(os.path.realpath(path)) for path in entries if path.is_symlink()}
    inside = {folder, *entries, *linked}
    above = {parent for path in (folder, *linked) for parent in path.parents} - inside
    for path in sorted(inside | above, key=lambda path: (path != folder, path not in above, path)):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # it has been removed meanwhile
        why = _not_private(status, is_above=path in above)
        if why:
            close = f", or close it: chmod go-w {path}" if path in above and "written" in why else ""
            raise PaddingError(
                f"got the compilation cache {str(folder)!r}, and {str(path)!r} {why}; what lies in the cache is run as "
                f"code, so give a new folder, under folders of yours or root's{close}"
            )


def _not_private(status: os.stat_result, *, is_above: bool) -> str | None:
    """Return why what lies at a path may come from others; None where it may not."""
    if status.st_uid not in (0, os.getuid()):
        return f"belongs to user {status.st_uid}, who can change it"
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1 and not is_above:
        return "has another name elsewhere (it is a hard link), by which others may have made it"
    shared = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(status.st_mode)
    held = status.st_mode & stat.S_ISVTX and is_above
    return "can be written to by others" if shared and not held else None
