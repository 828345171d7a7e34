"""Models, plans and requests of two modalities, and what a model says of each sample alone."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad import LengthTable, pad_samples, plan_packing, plan_shapes
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.serving import PredictionStats, Predictor
from tests.helpers.packed import make_model

LONGEST = {"text": 8, "audio": 19}
TABLE = LengthTable(
    tuple(LONGEST),
    np.stack([np.random.default_rng(5).integers(0, n + 1, 200) for n in LONGEST.values()], axis=1),
)
PLANS = {
    "padded": lambda: plan_shapes(TABLE, max_shapes=2, batch_size=8),
    "packed": lambda: plan_packing(TABLE, batch_size=8),
    "pairs": lambda: plan_packing(TABLE, batch_size=8, tile_pairs=True),
}


class Tagger(nnx.Module):
    """An output per sample, and one per position of audio, in any layout."""

    def __init__(self, seed=0):
        self.tag = nnx.Linear(3, 4, rngs=nnx.Rngs(seed))

    def tags(self, audio):
        """Of the positions of one sample, in NumPy."""
        return np.asarray(audio) @ np.asarray(self.tag.kernel[...]) + np.asarray(self.tag.bias[...])

    def __call__(self, batch):
        audio = jnp.asarray(batch.features["audio"])
        return {"tags": self.tag(audio), "count": jnp.asarray(batch.lengths["text"]).astype(jnp.float32)}


def make_requests(count, seed=0, longest=LONGEST):
    """Samples of random lengths, some without text or audio, some with targets."""
    rng = np.random.default_rng(seed)
    samples = []
    for number in range(count):
        text, audio = (int(rng.integers(0, n + 1)) for n in longest.values())
        sample = {"text": rng.integers(0, 11, text).astype(np.int32), "audio": rng.standard_normal((audio, 3), "f4")}
        samples.append({**sample, "targets": np.int32(number % 2)} if number % 3 else sample)
    return samples


@functools.cache
def transformer():
    model = make_model()
    model.eval()
    return model


@functools.cache
def audio_transformer(**options):
    """The smallest there is, of one modality."""
    sizes = {"d_model": 4, "num_heads": 1, "crossmodal_layers": 1, "memory_layers": 1, "dropout_rate": 0.0}
    config = TransformerConfig({"audio": ModalityConfig(feature_width=3)}, 2, **{**sizes, **options})
    return MultimodalTransformer(config, rngs=nnx.Rngs(0))


@functools.cache
def predictor(plan="padded", long_samples="error"):
    """Compiled once for all choices of ``long_samples``; its statistics go on from test to test."""
    if long_samples != "error":
        other = copy.copy(predictor(plan))
        other.long_samples, other.stats = long_samples, PredictionStats()
        return other
    return Predictor(transformer(), PLANS[plan](), example=make_requests(1)[0])


@functools.cache
def _alone(model):
    graph, state = nnx.split(model)
    return jax.jit(lambda state, batch: nnx.merge(graph, state)(batch)), state


def alone(samples, longest=LONGEST, model=None):
    """A model's own outputs for each sample by itself; by default the transformer's."""
    function, state = _alone(transformer() if model is None else model)
    plain = [{name: sample[name] for name in longest} for sample in samples]
    return [np.asarray(function(state, pad_samples([sample], pad_to=longest)))[0] for sample in plain]


def worst(got, wanted):
    """The largest difference between outputs, which are as many."""
    assert len(got) == len(wanted)
    return max(float(np.abs(a - b).max()) for a, b in zip(got, wanted, strict=True))
