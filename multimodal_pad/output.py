"""Output that is there whole or not at all."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_folder(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out``, renamed to it when the block ends well, else removed.

    Raises:
        FileExistsError: ``out`` is there already.
        OSError: it cannot be written.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists; name another folder, so that nothing is overwritten")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        yield folder
        folder.chmod(0o755)
        folder.rename(out)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
