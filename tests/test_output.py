import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from multimodal_pad import PaddingError, output, plan_shapes
from multimodal_pad.output import write_file, write_folder


def test_a_file_is_replaced(tmp_path):
    out = tmp_path / ("n" * 250)  # about the longest that file systems take
    write_file(out, b"old")
    write_file(out, b"new")
    assert out.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [out]


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    out = tmp_path / "file"
    write_file(out, b"old")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_file(out, b"new")
    assert out.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [out]


def test_the_folder_must_be_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "none" / "file", b"")


def test_all_is_on_the_disk_before_it_is_renamed(tmp_path, monkeypatch):
    done, plain = [], os.fsync

    def fsync(handle):
        done.append(str(Path(f"/proc/self/fd/{handle}").readlink()))
        plain(handle)

    def renamed(self, target):
        done.append(f"{self} -> {target}")
        os.rename(self, target)  # noqa: PTH104 - what is replaced is Path.rename

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("there is no /proc")
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr("pathlib.Path.rename", renamed)
    monkeypatch.setattr("pathlib.Path.replace", renamed)
    with write_folder(tmp_path / "run") as folder:
        (folder / "inside").mkdir()
        (folder / "inside" / "file").write_text("data")
        (folder / "link").symlink_to("nowhere")
    assert set(done[:3]) == {str(folder), f"{folder}/inside", f"{folder}/inside/file"}
    assert done[3:] == [f"{folder} -> {tmp_path / 'run'}", str(tmp_path)]
    done.clear()
    write_file(tmp_path / "file", b"data")
    assert len(done) == 2
    assert done[1] == f"{done[0]} -> {tmp_path / 'file'}"


def test_threads_write_one_file(tmp_path):
    values = [bytes([number]) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_file, args=(tmp_path / "file", value)) for value in values]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "file").read_bytes() in values
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_whole_or_not_there(tmp_path):
    def interrupted():
        with write_folder(tmp_path / "run") as folder:
            (folder / "half").write_text("")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with write_folder(tmp_path / "run") as folder:
        (folder / "whole").write_text("")
    assert [path.name for path in tmp_path.rglob("*")] == ["run", "whole"]
    with pytest.raises(FileExistsError, match="name another folder"), write_folder(tmp_path / "run"):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PaddingError, match=r"can't be written .*; name another folder"),
        write_folder(tmp_path / "file" / "run"),
    ):
        pass


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_decides_who_may_read(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_file(tmp_path / "file", b"new")
        plan_shapes({"text": [3, 4]}).save(tmp_path / "plan.json")
        with write_folder(tmp_path / "folder") as folder:
            (folder / "inside").write_text("")
    finally:
        os.umask(before)
    for name in ("file", "plan.json", "folder/inside"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o777 & ~umask


@pytest.mark.skipif(os.name != "posix", reason="kinds of files of POSIX")
@pytest.mark.parametrize("kind", ["link", "broken link", "folder", "pipe", "device"])
def test_only_files_are_replaced(tmp_path, kind):
    out, other = tmp_path / "out", tmp_path / "other"
    if kind == "link":
        other.write_text("old")
    {
        "link": lambda: out.symlink_to(other),
        "broken link": lambda: out.symlink_to(other),
        "folder": out.mkdir,
        "pipe": lambda: os.mkfifo(out),
        "device": lambda: None,
    }[kind]()
    out = Path(os.devnull) if kind == "device" else out
    told = {"folder": "a folder", "pipe": "a device, pipe", "device": "a device"}.get(kind, "a link")
    plan = plan_shapes({"text": [3, 4]})
    for write in (lambda: write_file(out, b"new"), lambda: plan.save(out, overwrite=True)):
        with pytest.raises(FileExistsError, match=f"is {told}.*only files are replaced; name another file"):
            write()
    assert other.exists() is (kind == "link")
    assert not other.exists() or other.read_text() == "old"


@pytest.mark.skipif(os.name != "posix", reason="locks of POSIX")
@pytest.mark.parametrize("folder", [True, False])
def test_only_what_is_left_over_is_removed(tmp_path, folder):
    left, locked = (output._locked(tmp_path, folder=folder) for _ in range(2))
    os.close(left[1])
    own = [".multimodal_pad-0123.part", ".other-0123456789abcdef.part", "multimodal_pad-0123456789abcdef.part"]
    for name in own:
        (tmp_path / name).write_text("")
    (tmp_path / "linked").mkdir()
    (tmp_path / ".multimodal_pad-0123456789abcdef.part").symlink_to(tmp_path / "linked")
    write_file(tmp_path / "file", b"")
    os.close(locked[1])
    kept = [*own, "linked", ".multimodal_pad-0123456789abcdef.part", "file", locked[0].name]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
