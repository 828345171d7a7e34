"""Cases of training and serving."""

import subprocess
import sys

from experiments.inputs.case import case

SAMPLES = """
import numpy as np, optax
from flax import nnx
from multimodal_pad import BucketBatcher, Fixed
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import fit, l1, binary_cross_entropy

SIZES = dict(d_model=8, num_heads=2, crossmodal_layers=1, memory_layers=1, dropout_rate=0.0)

def transformer(outputs, modalities, **options):
    return MultimodalTransformer(TransformerConfig(modalities, outputs, **{**SIZES, **options}), rngs=nnx.Rngs(0))

def model(outputs):
    return transformer(outputs, {"audio": ModalityConfig(feature_width=3)})

def batcher(targets):
    rng = np.random.default_rng(0)
    samples = [{"audio": rng.standard_normal((1 + i % 4, 3), dtype="f4"), "targets": t} for i, t in enumerate(targets)]
    return BucketBatcher(samples, Fixed({"audio": 4}), batch_size=16)

def trained(outputs, targets, epochs=1, **options):
    batches = batcher(targets)
    result = fit(model(outputs), batches, epochs=epochs, evaluate_on=batches, progress=False, **options)
    last = result.history[-1]
    figures = ", ".join(f"{name} {figure:.4f}" for name, figure in last.evaluation.items())
    return f"trains, {figures}"
"""


def _tools() -> dict:
    """Make what the cases share, from the package that they run against."""
    found: dict = {}
    exec(SAMPLES, found)
    return found


@case("labels out of range", "64 samples with labels 0 and -1, a model with 3 outputs, cross_entropy")
def negative_labels() -> str:
    import optax

    return _tools()["trained"](3, [-(i % 2) for i in range(64)], epochs=60, optimizer=optax.adam(0.01))


@case("labels out of range", "64 samples with labels 1 to 3, a model with 3 outputs, cross_entropy")
def labels_from_one() -> str:
    return _tools()["trained"](3, [1 + i % 3 for i in range(64)])


@case("labels out of range", "64 samples with targets -1 and 1, binary_cross_entropy")
def signs() -> str:
    import numpy as np

    tools = _tools()
    return tools["trained"](1, [np.float32(2 * (i % 2) - 1) for i in range(64)], loss=tools["binary_cross_entropy"])


def _token_ids(bad: int) -> str:
    import numpy as np

    tools = _tools()
    samples = [{"text": np.array([1, 2, bad if i == 7 else 3], np.int32), "targets": i % 2} for i in range(32)]
    batches = tools["BucketBatcher"](samples, tools["Fixed"]({"text": 3}), batch_size=16)
    model = tools["transformer"](2, {"text": tools["ModalityConfig"](vocabulary_size=5)})
    result = tools["fit"](model, batches, epochs=1, progress=False)
    return f"trains, loss {result.history[-1].train_loss:.4f}"


@case("token ids out of range", "a text with id -1")
def negative_id() -> str:
    return _token_ids(-1)


@case("token ids out of range", "a text with id 5 of a vocabulary of 5")
def id_of_the_size() -> str:
    return _token_ids(5)


@case("targets of another kind", "bool targets, cross_entropy, evaluate_on")
def bools() -> str:
    return _tools()["trained"](2, [bool(i % 2) for i in range(64)])


@case("targets of another kind", "class numbers of shape (1,), cross_entropy")
def one_of_one() -> str:
    import numpy as np

    return _tools()["trained"](2, [np.array([i % 2]) for i in range(64)])


@case("targets of another kind", "float class numbers, cross_entropy")
def floats() -> str:
    import numpy as np

    return _tools()["trained"](2, [np.float32(i % 2) for i in range(64)])


@case("targets of another kind", "one-hot targets, cross_entropy")
def one_hot() -> str:
    import numpy as np

    return _tools()["trained"](2, [np.eye(2, dtype=np.float32)[i % 2] for i in range(64)])


@case("targets of another kind", "class numbers, a model with 1 output, cross_entropy")
def one_output() -> str:
    return _tools()["trained"](1, [i % 2 for i in range(64)])


def _resumed(one: dict, other: dict) -> str:
    """Train an epoch, and go on with another model."""
    from multimodal_pad.training.checkpoint import Checkpoints

    tools = _tools()
    batches = tools["batcher"]([i % 2 for i in range(64)])
    with Checkpoints("run") as checkpoints:
        for epochs, options in ((1, one), (2, other)):
            given = {name: options[name] for name in ("optimizer",) if name in options}
            sizes = {name: value for name, value in options.items() if name not in given}
            model = tools["transformer"](2, {"audio": tools["ModalityConfig"](feature_width=3)}, **sizes)
            result = tools["fit"](model, batches, epochs=epochs, checkpoints=checkpoints, progress=False, **given)
    return f"goes on, loss {result.history[-1].train_loss:.3f}"


@case("checkpoints of another model", "a run with 2 attention heads goes on with 4")
def other_heads() -> str:
    return _resumed({"num_heads": 2}, {"num_heads": 4})


@case("checkpoints of another model", "a run with dropout 0.1 goes on with 0.5")
def other_dropout() -> str:
    return _resumed({"dropout_rate": 0.1}, {"dropout_rate": 0.5})


@case("checkpoints of another model", "a run with adam goes on with adamw")
def other_optimizer() -> str:
    import optax

    return _resumed({"optimizer": optax.adam(0.01)}, {"optimizer": optax.adamw(0.01)})


@case("checkpoints of another model", "Predictor.load with the modalities in another order")
def other_order() -> str:
    import numpy as np

    from multimodal_pad.serving import Predictor

    tools = _tools()
    sizes = {name: tools["ModalityConfig"](feature_width=3) for name in ("text", "audio")}
    sample = {"text": np.ones((2, 3), np.float32), "audio": np.full((4, 3), -1, np.float32)}
    model = tools["transformer"](2, sizes)
    plan = tools["Fixed"]({"text": 4, "audio": 4})
    predictor = Predictor(model, plan, batch_size=1, example=sample)
    predictor.save("saved")
    reversed_model = tools["transformer"](2, dict(reversed(sizes.items())))
    loaded = Predictor.load("saved", model=reversed_model)
    return f"loaded, outputs differ by {float(np.abs(loaded(sample) - predictor(sample)).max()):.3f}"


@case("the compilation cache", "an entry that everybody could write to, in a folder that is private now")
def open_entry() -> str:
    from pathlib import Path

    from multimodal_pad.compiling import use_compilation_cache

    Path("cache").mkdir(0o700)
    Path("cache/entry").write_bytes(b"")
    Path("cache/entry").chmod(0o666)
    use_compilation_cache("cache")
    return "trusted"


@case("the compilation cache", "an entry that was copied to the name of another")
def copied_entry() -> str:
    import shutil

    import jax
    import numpy as np

    from multimodal_pad.compiling import use_compilation_cache

    folder = use_compilation_cache("cache")

    def add_one(x):
        return x + 1

    def triple(x):
        return 3 * x

    for function in (add_one, triple):
        jax.jit(function)(np.float32(1))
    (one,), (other,) = (list(folder.glob(f"*{name}*-cache")) for name in ("add_one", "triple"))
    shutil.copy(other, one)
    jax.clear_caches()
    return f"1 + 1 is {float(jax.jit(add_one)(np.float32(1))):.0f}"


_STOPPED = (
    SAMPLES
    + """
import os, signal, sys
from multimodal_pad.training.checkpoint import Checkpoints
number = getattr(signal, sys.argv[1])

def stop(record):
    if record["steps"] == 30:
        for _ in range(int(sys.argv[2])):
            os.kill(os.getpid(), number)

batches = batcher([i % 2 for i in range(64)])
with Checkpoints("run") as checkpoints:
    fit(model(2), batches, epochs=2000, checkpoints=checkpoints, save_every=3000, on_step=stop, progress=False)
"""
)


def _stopped(name: str, times: int) -> str:
    """Send a signal to a training; return its status, its last line, and the number of checkpoints."""
    from pathlib import Path

    done = subprocess.run(
        [sys.executable, "-c", _STOPPED, name, str(times)], capture_output=True, text=True, timeout=100
    )
    saved = [path.name for path in Path("run").glob("[0-9]*") if path.name.isdigit()] if Path("run").exists() else []
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"status {done.returncode}: {last.split(';')[0]}; {len(saved)} checkpoints"


@case("signals in fit", "SIGHUP")
def hangup() -> str:
    return _stopped("SIGHUP", 1)


@case("signals in fit", "SIGTERM, sent twice")
def terminated_twice() -> str:
    return _stopped("SIGTERM", 2)
