"""Every Python block of the README and of the pages runs as it stands, one after the other, in an empty folder."""

import contextlib
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad.cli import main
from multimodal_pad.errors import PlanWarning
from tests.helpers.caches import restored_cache_options
from tests.helpers.corpora import write_mult

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ALONE = ["scale.md"]
"""Pages with a line that must come before JAX is used, and so before other tests."""

ONE_TASK = {"SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
"""What a job of one task is told by Slurm, whose port follows from the number of the job."""

NOT_EVERYWHERE = {"tensorflow", "grain", "datasets", "equinox", "torch", "tensorboardX", "fastapi", "uvicorn", "httpx"}
COMMANDS = ["README.md", "command-line.md", "corpora.md"]
"""Pages whose lines for the console command run, too."""

COMMAND = "multimodal-pad "
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


SLOW = [
    "README.md",
    "command-line.md",
    "corpora.md",
    "logging.md",
    "own-loop.md",
    "pipeline.md",
    "predict.md",
    "scale.md",
    "train.md",
    "write-a-packed-model.md",
]
"""Pages that take five seconds or more, each."""


def with_python():
    pages = [page for page in PAGES if "```python\n" in page.read_text(encoding="utf-8")]
    assert {page.name for page in pages} >= set(SLOW)
    return [pytest.param(p, id=p.name, marks=pytest.mark.slow if p.name in SLOW else ()) for p in pages]


def missing(block):
    """What a block imports that is not installed."""
    imported = re.findall(r"^\s*(?:import|from) (\w+)(?:\.(\w+))?", block, re.MULTILINE)
    names = {part for pair in imported for part in pair if part}
    return [name for name in names & NOT_EVERYWHERE if importlib.util.find_spec(name) is None]


def run_page(page):
    """Run the Python, and the lines of the console command, in the order of the page; give the blocks' number."""
    text, names, count = page.read_text(encoding="utf-8"), {"__name__": page.stem}, 0
    found = list(BLOCKS.finditer(text))
    for block, after in zip(found, [*found[1:], None], strict=True):
        language, body = block.groups()
        if language == "sh" and page.name in COMMANDS:
            for line in body.replace("\\\n", "").splitlines():
                if line.startswith(COMMAND):
                    assert main(shlex.split(line.removeprefix(COMMAND), comments=True)) == 0, line
        if language != "python" or missing(body):
            continue
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(body, f"{page.name}, block {count + 1}", "exec"), names)
        count += 1
        # A block without a language or of text that follows at once is what was printed.
        if after is not None and after.group(1) in ("", "text") and text[block.end() : after.start()] == "\n\n":
            assert output.getvalue() == after.group(2), f"{page.name}, block {count}"
    return count


def prepare(folder):
    """The files that pages take for granted: a corpus of the field, and a table of lengths."""
    lengths = np.random.default_rng(0).integers(1, 12, (64, 3))
    splits = {"train": lengths[:40], "valid": lengths[40:52], "test": lengths[52:]}
    write_mult(folder, counts={split: len(table) for split, table in splits.items()}, lengths=splits)
    columns = np.random.default_rng(0).integers(1, 60, (300, 2))
    np.savetxt(folder / "lengths.csv", columns, fmt="%d", delimiter=",", header="text,audio", comments="")


@pytest.mark.filterwarnings("ignore::multimodal_pad.PlanWarning")
@pytest.mark.parametrize("page", with_python())
def test_the_blocks_of_a_page_run_as_they_stand(page, tmp_path, monkeypatch):
    prepare(tmp_path)
    if page.name in ALONE:
        environment = {**os.environ, **ONE_TASK, "SLURM_JOB_ID": str(os.getpid()), "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-W", "error", "-m", "tests.project.test_code_blocks", str(page)]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return
    monkeypatch.chdir(tmp_path)
    with restored_cache_options():
        assert run_page(page) > 0


if __name__ == "__main__":
    warnings.simplefilter("ignore", PlanWarning)
    assert run_page(Path(sys.argv[1])) > 0
