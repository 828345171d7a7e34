"""The persistent compilation cache: an option of the process that tests give back as it was, and its entries."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jax
from jax._src import compilation_cache as jax_cache
from jax.experimental.compilation_cache import compilation_cache

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_persistent_cache_enable_xla_caches",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


@contextmanager
def no_cache() -> Iterator[None]:
    """Everything is compiled, whatever other tests have compiled before."""
    with restored_cache_options():
        jax.config.update("jax_compilation_cache_dir", None)
        compilation_cache.reset_cache()
        yield


@contextmanager
def restored_cache_options() -> Iterator[None]:
    before = {name: getattr(jax.config, name) for name in OPTIONS}
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def all_whole(folder: Path) -> bool:
    """Whether there are entries alone, and JAX can decompress each."""
    assert [path.name for path in folder.iterdir() if path not in entries(folder)] == []
    return all(jax_cache.decompress_executable(path.read_bytes()) for path in entries(folder))
