"""Cases of planning and of the console command."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from experiments.inputs.case import case


def command(*arguments: str) -> str:
    """Run the console command; return its status and last line."""
    done = subprocess.run(
        [sys.executable, "-m", "multimodal_pad.cli", *arguments], capture_output=True, text=True, check=False
    )
    return told(done.returncode, done.stdout + done.stderr)


def told(status: int, output: str) -> str:
    """Format a status and the last line, without text that changes from run to run."""
    lines = output.strip().splitlines() or ["nothing is printed"]
    return f"status {status}: {lines[-1].replace(str(Path.cwd()), '.')!r}"[:240]


def write_lengths(name: str = "lengths.csv", heading: str = "text,audio", rows: str = "3,40\n4,2\n") -> str:
    """Write a file of lengths."""
    Path(name).write_text(f"{heading}\n{rows}")
    return name


def plan_seconds(samples: int, modalities: int, shapes: int) -> str:
    """Time a plan, in seconds, for lengths that rise and fall together."""
    from multimodal_pad import LengthTable, TransformerCost, plan_shapes

    rng = np.random.default_rng(0)
    lengths = np.ceil(rng.lognormal(3, 0.8, (samples, 1)) * rng.lognormal(0, 0.1, (samples, modalities)))
    table = LengthTable(tuple(f"m{number:02d}" for number in range(modalities)), lengths.astype(int))
    began = time.perf_counter()
    plan = plan_shapes(table, max_shapes=shapes, cost=TransformerCost(table.modalities))
    return f"{time.perf_counter() - began:.0f} s, {plan.efficiency:.3f} of the padded cost is real"


@case("many modalities", "a plan of 8 shapes for 10 modalities of 10,000 samples")
def ten_modalities() -> str:
    return plan_seconds(10_000, 10, 8)


@case("many modalities", "a plan of 2 shapes for 40 modalities of 300 samples")
def forty_modalities() -> str:
    return plan_seconds(300, 40, 2)


@case("integers", "Fixed padding to 2**33 positions, scheduled")
def long_bucket() -> str:
    from multimodal_pad import Fixed, LengthTable, make_schedule

    schedule = make_schedule(LengthTable(("text",), np.array([[3], [4]])), Fixed({"text": 2**33}), batch_size=2)
    return f"a batch shape of {schedule[0][0].tolist()} positions"


@case("integers", "an edge of 2**32 + 8, scheduled")
def long_edge() -> str:
    from multimodal_pad import Ladder, LengthTable, make_schedule

    schedule = make_schedule(LengthTable(("text",), np.array([[12]])), Ladder({"text": [2**32 + 8]}), batch_size=1)
    return f"a batch shape of {schedule[0][0].tolist()} positions for 12"


@case("integers", "a plan for lengths of 2**31 - 1, aligned to 8, saved and read back")
def aligned_plan() -> str:
    from multimodal_pad import ShapePlan, plan_shapes

    plan = plan_shapes({"text": [3, 2**31 - 1]}, max_shapes=2, alignment=8)
    return f"shapes {ShapePlan.from_json(plan.to_json()).lengths.tolist()}"


@case("integers", "plan lengths.csv --batch-size 10**30")
def batch_size() -> str:
    return command("plan", write_lengths(), "--batch-size", str(10**30))


@case("integers", "plan lengths.csv --align 10**30")
def alignment() -> str:
    return command("plan", write_lengths(), "--align", str(10**30))


@case("integers", "plan lengths.csv --cost transformer --d-model 10**400")
def d_model() -> str:
    return command("plan", write_lengths(), "--cost", "transformer", "--d-model", str(10**400))


@case("integers", "plan of a CSV with a row of three values under two columns")
def too_many_values() -> str:
    return command("plan", write_lengths(rows="3,40\n3,1,200\n"))


CONVERTING = """
import sys, time
from multimodal_pad import cli
from multimodal_pad.commands import convert
from multimodal_pad.sources import NumpyDir

class Slow:
    def __init__(self, source):
        self.source, self.lengths = source, source.lengths
    def __len__(self):
        return len(self.source)
    def __getitem__(self, index):
        print("reading", flush=True)
        time.sleep(20 if index else 0)
        return self.source[index]

real = convert.convert
convert.convert = lambda splits, out, **options: real({"train": Slow(splits["train"])}, out, **options)
sys.exit(cli.main(["convert", "numpy_dir", "cache", "copies/out"]))
"""


def stopped(number: int) -> str:
    """Send a signal to a conversion; return what it leaves behind, before and after the next conversion."""
    from multimodal_pad.sources import convert

    samples = [{"text": np.ones((2, 3), np.float32)}] * 3
    convert({"train": samples}, "cache")
    run = subprocess.Popen(
        [sys.executable, "-c", CONVERTING], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert run.stdout is not None
    run.stdout.readline()
    time.sleep(1)
    run.send_signal(number)
    _, error = run.communicate(timeout=60)
    left = len(list(Path("copies").iterdir()))
    convert({"train": samples}, Path("copies/next"))
    after = len(list(Path("copies").iterdir())) - 1
    return f"{told(run.returncode, error)}; left over: {left}, and {after} after the next conversion"


@case("interrupts", "convert, which gets SIGTERM while it writes")
def terminated() -> str:
    return stopped(signal.SIGTERM)


@case("interrupts", "convert, whose terminal is closed while it writes (SIGHUP)")
def hung_up() -> str:
    return stopped(signal.SIGHUP)


@case("interrupts", "convert, which is killed while it writes (SIGKILL)")
def killed() -> str:
    return stopped(signal.SIGKILL)


@case("interrupts", "plan, which gets Ctrl-C while it still imports")
def early() -> str:
    words = [sys.executable, "-X", "importtime", "-m", "multimodal_pad.cli", "plan", write_lengths()]
    run = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1)
    assert run.stderr is not None
    for line in run.stderr:
        if line.strip().endswith("multimodal_pad.batching"):
            break
    run.send_signal(signal.SIGINT)
    _, error = run.communicate(timeout=60)
    lines = [line for line in error.splitlines() if not line.startswith("import time:")]
    return f"{told(run.returncode, chr(10).join(lines))}, {len(lines)} lines"


@case("files and names", "convert of a folder whose name is no UTF-8")
def no_utf8() -> str:
    from multimodal_pad.sources import convert

    convert({"train": [{"text": np.ones((2, 3), np.float32)}]}, os.fsdecode(b"caf\xe9"))
    return command("convert", "numpy_dir", os.fsdecode(b"caf\xe9"), "out")


@case("files and names", "plan --out LINK --overwrite, where LINK is a link to a file")
def link() -> str:
    Path("kept.json").write_text("kept")
    Path("plan.json").symlink_to("kept.json")
    outcome = command("plan", write_lengths(), "--out", "plan.json", "--overwrite")
    return f"{outcome}; {'still a link' if Path('plan.json').is_symlink() else 'the link is replaced'}"


@case("files and names", "plan --out PIPE --overwrite, where PIPE is a named pipe")
def pipe() -> str:
    os.mkfifo("plan.json")
    outcome = command("plan", write_lengths(), "--out", "plan.json", "--overwrite")
    return f"{outcome}; {'still a pipe' if Path('plan.json').is_fifo() else 'the pipe is replaced'}"


def shell(line: str) -> str:
    """Run a command in Bash; return its status and the last line of its standard error."""
    program = f'"{sys.executable}" -m multimodal_pad.cli'
    done = subprocess.run(["bash", "-c", line.format(program=program)], capture_output=True, text=True, check=False)
    return told(done.returncode, done.stderr)


@case("files and names", "plan with its output closed (>&-)")
def closed_output() -> str:
    return shell(f"{{program}} plan {write_lengths()} >&-")


@case("files and names", "plan of a CSV whose column is named by an escape sequence that clears the screen")
def escapes() -> str:
    name = write_lengths(heading="te\x1b[2Jxt,audio")
    done = subprocess.run(
        [sys.executable, "-m", "multimodal_pad.cli", "plan", name], capture_output=True, text=True, check=False
    )
    return f"status {done.returncode}: {done.stdout.count(chr(27))} escape sequences printed"
