import os
import stat
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

from multimodal_pad import PaddingError
from multimodal_pad.compiling import use_compilation_cache
from multimodal_pad.compiling.cache import check_private
from tests.helpers.caches import restored_cache_options
from tests.helpers.devices import without_xla_log

START = """
import sys
import jax, jax.numpy as jnp, numpy as np
from multimodal_pad import BatchShape, BatchSpec, pad_samples
from multimodal_pad.compiling import CompileLog, use_compilation_cache, warm_up

def cached_step(state, batch):
    x = batch.features["audio"]
    return state + jnp.tanh(jnp.einsum("btf,bsf->bts", x, x)).sum()

use_compilation_cache(sys.argv[1])
with CompileLog() as log:
    state = jnp.zeros(()) + 1  # small eager operations are kept too
    example = pad_samples([{"audio": np.ones((2, 3), np.float32)}])
    shapes = [BatchShape.of(2, {"audio": length}) for length in (4, 8, 16)]
    table = warm_up(cached_step, BatchSpec(shapes, example), state, progress=False)
    print(float(table(state, pad_samples([{"audio": np.ones((4, 3), np.float32)}], batch_size=2))))
print(log.total.compiled, log["cached_step"].cache_hits)
print(log.report("cached_step"))
"""

posix = pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")


def begin(folder: Path) -> subprocess.Popen:
    command, wide = [sys.executable, "-c", START, str(folder)], {**os.environ, "COLUMNS": "200"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=wide)


def start(folder: Path) -> tuple[list[str], str]:
    """What a process that uses the folder prints, and its errors and warnings."""
    process = begin(folder)
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return out.splitlines(), without_xla_log(errors)


def entries(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if "cached_step" in path.name)


def test_a_second_process_compiles_nothing(tmp_path):
    folder = tmp_path / "above" / "cache"
    first, _ = start(folder)
    second, errors = start(folder)
    assert first[0] == second[0]
    compiled, hits = map(int, first[1].split())
    assert compiled >= 3
    assert hits == 0
    assert second[1] == "0 3"
    assert second[-1].startswith(f"the compilation cache had {compiled} of {compiled} programs: 0.")
    assert errors == ""
    assert len(entries(folder)) == 3
    if os.name == "posix":
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 0xFF]) + data[middle + 1 :]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("filled") / "cache"
    start(folder)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_damaged_entries_are_replaced(filled, tmp_path):
    """One cut short, one with a byte changed, and one that unpacks to nonsense."""
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    for name, data in filled.items():
        (folder / name).write_bytes(data)
    short, changed, nonsense = entries(folder)
    short.write_bytes(short.read_bytes()[:100])
    changed.write_bytes(flipped(changed.read_bytes()))
    nonsense.write_bytes(zlib.compress(b"nonsense" * 100))
    out, errors = start(folder)
    assert out[1] == "3 0"
    assert float(out[0]) > 1
    assert (
        errors.count("Error reading persistent compilation cache entry for 'jit_cached_step'") == 1
    )  # has no checksum
    again, errors = start(folder)
    assert (again[1], errors) == ("0 3", "")


@pytest.mark.slow
def test_two_processes_start_together(tmp_path):
    folder = tmp_path / "cache"
    processes = [begin(folder) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert results[0][0].splitlines()[0] == results[1][0].splitlines()[0]
    assert start(folder)[0][1] == "0 3"


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o1777])
def test_a_folder_that_others_can_write_to_is_refused(tmp_path, mode):
    folder = tmp_path / "cache"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(PaddingError, match=rf"'{folder}' can be written to by others; .*give a new folder") as raised:
        use_compilation_cache(folder)
    assert "chmod" not in str(raised.value), "what is in it would be trusted"


@posix
def test_a_folder_above_that_others_can_write_to_is_refused(tmp_path):
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(0o777)
    with pytest.raises(PaddingError, match=rf"'{above}' can be written to by others.*chmod go-w {above}"):
        use_compilation_cache(above / "cache")
    above.chmod(0o1777)  # as /tmp: what others own can't be replaced
    check_private(above / "cache")


@pytest.mark.slow
@posix
def test_a_generous_umask_does_not_open_what_is_made(tmp_path):
    """As users have it whose group is their own: what JAX writes would be open to the group."""
    before = os.umask(0o002)
    try:
        start(tmp_path / "one" / "two" / "cache")
        out, _ = start(tmp_path / "one" / "two" / "cache")
    finally:
        os.umask(before)
    assert out[1] == "0 3"


@posix
def test_an_entry_that_others_can_write_to_is_refused(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o755)
    (folder / "entry").write_bytes(b"")
    (folder / "entry").chmod(0o666)
    for mode in (0o755, 0o700):  # what was left there while others could reach it is there still
        folder.chmod(mode)
        with pytest.raises(PaddingError, match=r"entry' can be written to by others.*give a new folder"):
            use_compilation_cache(folder)
    (folder / "entry").chmod(0o644)
    check_private(folder)


@posix
def test_an_entry_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "entry").write_bytes(b"")
    if os.getuid() == 0:
        os.chown(tmp_path / "entry", 4711, -1)
    else:
        monkeypatch.setattr("multimodal_pad.compiling.cache._not_private", lambda *_, **__: "belongs to user 4711")
    with pytest.raises(PaddingError, match=r"belongs to user 4711"):
        check_private(tmp_path)


@posix
def test_what_a_link_leads_to_is_looked_at(tmp_path):
    folder, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    folder.mkdir(mode=0o700)
    elsewhere.mkdir(mode=0o700)
    (elsewhere / "file").write_bytes(b"")
    (folder / "entry").symlink_to(elsewhere / "file")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "dangling").symlink_to(tmp_path / "nothing")
    check_private(folder)
    (elsewhere / "file").chmod(0o606)
    with pytest.raises(PaddingError, match=r"elsewhere/file' can be written to by others"):
        check_private(folder)
    (elsewhere / "file").chmod(0o600)
    elsewhere.chmod(0o777)
    with pytest.raises(PaddingError, match=rf"'{elsewhere}' can be written to by others"):
        check_private(folder)


@posix
def test_a_hard_link_is_refused(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    (tmp_path / "file").write_bytes(b"")
    os.link(tmp_path / "file", folder / "entry")
    with pytest.raises(PaddingError, match=r"entry' has another name elsewhere \(it is a hard link\)"):
        check_private(folder)


@posix
def test_a_folder_of_somebody_else_is_refused(tmp_path, monkeypatch):
    (tmp_path / "cache").mkdir(mode=0o700)
    if os.getuid() == 0:
        os.chown(tmp_path / "cache", 4711, -1)
    else:
        monkeypatch.setattr("os.getuid", lambda: 4711)
    with pytest.raises(
        PaddingError, match=r"cache' belongs to user \d+, who can change it; what lies in the cache is run"
    ):
        check_private(tmp_path / "cache")


def test_what_is_no_local_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PaddingError, match="is not a folder"):
        use_compilation_cache(tmp_path / "file")
    with pytest.raises(PaddingError, match="give a local folder"):
        use_compilation_cache("gs://bucket/cache")
    with pytest.raises(PaddingError, match="got an empty cache_dir"):
        use_compilation_cache("")


def test_another_folder_can_follow(tmp_path):
    import jax

    with restored_cache_options():
        for name in ("one", "other"):
            folder = use_compilation_cache(tmp_path / name)
            jax.clear_caches()
            jax.jit(lambda x: x + 1)(1.0)
            assert any(folder.iterdir())
