"""Entries of the compilation cache are whole, whatever breaks off, and mended where they are not."""

import os
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax._src import compilation_cache as jax_cache
from jax._src import distributed, lru_cache
from jax.experimental.compilation_cache import compilation_cache

from multimodal_pad import BatchSpec, pad_samples
from multimodal_pad.compiling import CompileLog, use_compilation_cache, warm_up
from multimodal_pad.compiling.cache import write_whole_entries
from multimodal_pad.compiling.cache_entries import WholeEntries
from tests.helpers.caches import all_whole, entries, restored_cache_options

WHOLE = zlib.compress(np.random.default_rng(0).bytes(10_000))
OTHER = zlib.compress(np.random.default_rng(1).bytes(10_000))


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A new cache folder that is in use."""
    with restored_cache_options():
        yield use_compilation_cache(tmp_path / "cache")


def add_one(x):
    return x + 1


def compile_anew() -> CompileLog:
    """What compiling a small program counts, with nothing of it in the memory of the process."""
    jax.clear_caches()
    with CompileLog() as log:
        assert float(jax.jit(add_one)(np.float32(1))) == 2
    return log


# Damage


@pytest.mark.parametrize("damage", [slice(-100), slice(0), slice(None, None, -1)])
def test_what_does_not_decompress_is_replaced_without_a_warning(folder, damage):
    compile_anew()
    (entry,) = entries(folder)
    entry.write_bytes(entry.read_bytes()[damage])
    assert compile_anew().total.compiled == 1
    assert all_whole(folder)
    assert compile_anew().total.cache_hits == 1


def test_what_decompresses_to_garbage_is_warned_of_once(folder):
    compile_anew()
    (entry,) = entries(folder)
    entry.write_bytes(jax_cache.compress_executable(b"garbage" * 100))
    with pytest.warns(UserWarning, match="Error reading persistent compilation cache entry"):
        assert compile_anew().total.compiled == 1
    assert compile_anew().total.cache_hits == 1


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file can grow beyond so many bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_is_no_file_is_replaced(folder):
    compile_anew()
    (entry,) = entries(folder)
    for spoil in (entry.mkdir, lambda: os.mkfifo(entry), lambda: entry.symlink_to(entry)):
        entry.unlink()
        spoil()
        assert compile_anew().total.compiled == 1
        assert entry.is_file()
        assert not entry.is_symlink()
        assert compile_anew().total.cache_hits == 1


def test_an_entry_of_another_key_is_compiled_anew(folder):
    """JAX alone would run the other program."""

    def triple(x):
        return 3 * x

    compile_anew()
    (entry,) = entries(folder)
    jax.clear_caches()
    jax.jit(triple)(np.float32(1))
    (other,) = set(entries(folder)) - {entry}
    entry.write_bytes(other.read_bytes())
    assert compile_anew().total.compiled == 1
    assert compile_anew().total.cache_hits == 1


@settings(max_examples=25)
@given(st.data())
def test_any_damage_is_found(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("cache")
    cache = WholeEntries(str(folder), max_size=-1)
    cache.put("key", WHOLE[:200])
    whole = (folder / "key-cache").read_bytes()
    at, value = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
    spoilt = data.draw(st.sampled_from([whole[:at], whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1 :]]))
    (folder / "key-cache").write_bytes(spoilt)
    assert cache.get("key") is None
    cache.put("key", WHOLE)
    assert cache.get("key") == WHOLE


def test_a_write_that_breaks_off_leaves_nothing(tmp_path):
    cache = WholeEntries(str(tmp_path), max_size=-1)
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        cache.put("key", WHOLE)
    assert list(tmp_path.iterdir()) == []
    cache.put("key", WHOLE)
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        cache.put("key", OTHER)
    assert cache.get("key") == WHOLE
    assert all_whole(tmp_path)


def test_jax_alone_leaves_half_an_entry(tmp_path):
    """Or else it has been mended, and WholeEntries is of no more use."""
    cache = lru_cache.LRUCache(str(tmp_path), max_size=-1)
    with full_disk(1000), pytest.raises(OSError, match="too large"):
        cache.put("key", WHOLE)
    assert cache.get("key") == WHOLE[:1000]
    cache.put("key", WHOLE)
    assert cache.get("key") == WHOLE[:1000]
    assert WholeEntries(str(tmp_path), max_size=-1).get("key") is None


def half_read(writer: type[lru_cache.LRUCache], folder: Path) -> int:
    """How many reads by JAX find a part of an entry while it is written."""
    value = b"x" * 20_000_000
    reader, halves, done = lru_cache.LRUCache(str(folder), max_size=-1), [], threading.Event()
    keys = [f"key{number}" for number in range(20)]

    def read():
        while not done.is_set():
            for key in keys:
                try:
                    got = reader.get(key)
                except FileNotFoundError:
                    continue  # removed below
                if got is not None and len(got) < len(value):
                    halves.append(key)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for key in keys:
            writer(str(folder), max_size=-1).put(key, value)
            time.sleep(0.001)
            (folder / f"{key}-cache").unlink()
    finally:
        done.set()
        thread.join()
    return len(halves)


def test_nobody_reads_half_an_entry(tmp_path):
    assert half_read(WholeEntries, tmp_path) == 0


def test_the_test_above_can_fail(tmp_path):
    assert half_read(lru_cache.LRUCache, tmp_path) > 0


# JAX's other options


def test_entries_are_those_of_jax(tmp_path):
    """They can be read by JAX alone, which overlooks their checksums, and the other way round."""
    ours, alone = WholeEntries(str(tmp_path), max_size=-1), lru_cache.LRUCache(str(tmp_path), max_size=-1)
    ours.put("one", WHOLE)
    alone.put("two", OTHER)
    assert (ours.get("one"), ours.get("two"), ours.get("three")) == (WHOLE, OTHER, None)
    assert jax_cache.decompress_executable(alone.get("one")) == jax_cache.decompress_executable(WHOLE)


def test_a_folder_of_jax_options_is_safe_too(tmp_path, monkeypatch):
    monkeypatch.setattr(jax_cache, "LRUCache", lru_cache.LRUCache)
    with restored_cache_options():
        jax.config.update("jax_compilation_cache_dir", str(tmp_path))
        compilation_cache.reset_cache()
        compile_anew()
        assert type(jax_cache._cache) is lru_cache.LRUCache
        batch = pad_samples([{"audio": np.ones((2, 3), np.float32)}])
        warm_up(lambda state, _batch: state, BatchSpec([batch.shape], batch), np.float32(1), progress=False)
        assert type(jax_cache._cache) is WholeEntries


def test_it_holds_after_a_reset_and_for_other_folders(folder, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "other"))
    compilation_cache.reset_cache()
    compile_anew()
    assert type(jax_cache._cache) is WholeEntries
    assert entries(folder) == []
    assert len(entries(tmp_path / "other")) == 1
    cache = jax_cache._cache
    assert write_whole_entries()
    assert jax_cache._cache is cache, "asking again resets nothing"


def test_only_the_first_process_writes(folder, monkeypatch):
    monkeypatch.setattr(distributed.global_state, "process_id", 1)
    assert compile_anew().total.compiled == 1
    assert list(folder.iterdir()) == []


def test_contents_can_be_checked(tmp_path):
    """JAX wraps the cache where its option asks for that."""
    before = jax.config.jax_compilation_cache_check_contents
    jax.config.update("jax_compilation_cache_check_contents", True)
    try:
        cache, _ = jax_cache.get_file_cache(str(tmp_path))
    finally:
        jax.config.update("jax_compilation_cache_check_contents", before)
    assert isinstance(cache, jax_cache.VerificationCache)
    assert isinstance(cache._base_cache, WholeEntries)


def test_the_size_of_the_folder_can_be_bounded(tmp_path, monkeypatch):
    """JAX's option jax_compilation_cache_max_size, with a stand-in for the file lock of another library."""
    monkeypatch.setattr(lru_cache, "filelock", SimpleNamespace(FileLock=lambda _path: threading.RLock()))
    cache = WholeEntries(str(tmp_path), max_size=25_000)
    for key in ("one", "two", "three"):
        cache.put(key, WHOLE)
    assert [cache.get(key) for key in ("one", "two", "three")] == [None, WHOLE, WHOLE]
    (tmp_path / "two-cache").write_bytes(WHOLE[:5000])
    assert cache.get("two") is None
    cache.put("two", OTHER)
    assert [cache.get(key) for key in ("two", "three")] == [OTHER, WHOLE]
    assert len(list(tmp_path.iterdir())) == 4, "an entry and its time each"


def test_remote_folders_are_left_to_jax(tmp_path):
    """epath, or another library, says what writing and reading are there."""
    cache = WholeEntries(str(tmp_path), max_size=-1)
    cache.path = RemotePath(tmp_path)
    cache.put("key", WHOLE[:5000])
    cache.put("key", WHOLE)
    assert cache.get("key") == WHOLE[:5000]


class RemotePath:
    def __init__(self, folder):
        self.folder = folder

    def __str__(self):
        return f"gs:/{self.folder}"

    def __truediv__(self, name):
        return self.folder / name


def test_another_jax_keeps_its_own_cache(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "multimodal_pad.compiling.cache_entries", None)
    monkeypatch.setattr(jax_cache, "LRUCache", lru_cache.LRUCache)
    with restored_cache_options():
        folder = use_compilation_cache(tmp_path / "cache")
        assert not write_whole_entries()
        assert compile_anew().total.compiled == 1
        assert compile_anew().total.cache_hits == 1
        assert len(entries(folder)) == 1


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_the_umask_decides_who_may_read_an_entry(tmp_path):
    before = os.umask(0o027)
    try:
        WholeEntries(str(tmp_path), max_size=-1).put("key", WHOLE)
    finally:
        os.umask(before)
    assert (tmp_path / "key-cache").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_no_umask_lets_others_write_to_an_entry(tmp_path):
    before = os.umask(0)
    try:
        WholeEntries(str(tmp_path), max_size=-1).put("key", WHOLE)
    finally:
        os.umask(before)
    assert (tmp_path / "key-cache").stat().st_mode & 0o777 == 0o644
