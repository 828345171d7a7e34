"""The case whose results ``golden/transformer.npz`` holds, as the model of the first version gave them on CPU.

``python -m tests.helpers.golden_case`` writes them anew, for a change that is meant to change them.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from multimodal_pad import PaddedBatch, pad_samples
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import cross_entropy
from tests.helpers.oracle_model import apart, together

GOLDEN = Path(__file__).parents[1] / "models" / "golden" / "transformer.npz"
CONFIG = TransformerConfig(
    {"text": ModalityConfig(vocabulary_size=11), "audio": ModalityConfig(feature_width=5, kernel_size=3)},
    num_outputs=3,
    d_model=8,
    num_heads=2,
    crossmodal_layers=1,
    memory_layers=3,
    dropout_rate=0.0,
)


def golden_batch() -> PaddedBatch:
    """Odd and even lengths, a missing modality, an empty row."""
    rng = np.random.default_rng(7)
    samples = [
        {"text": rng.integers(0, 11, t).astype(np.int32), "audio": rng.standard_normal((a, 5)).astype(np.float32)}
        for t, a in ((4, 9), (1, 13), (0, 6), (7, 0))
    ]
    return pad_samples([{**sample, "targets": np.int32(i % 3)} for i, sample in enumerate(samples)], batch_size=5)


def golden_parameters() -> Any:
    """Parameters that don't depend on how the model is initialised, drawn in the order of the oracle's paths."""
    state = nnx.state(MultimodalTransformer(CONFIG, rngs=nnx.Rngs(0)), nnx.Param)
    rng = np.random.default_rng(8)
    drawn = {}
    for path, x in apart(CONFIG, state).items():
        normal = rng.standard_normal(x.shape) / np.sqrt(x.shape[-2] if x.ndim > 1 else 4)
        drawn[path] = normal.astype(np.float32)
    return together(CONFIG, drawn, state)


def golden_results(attention: Any = None) -> dict[str, np.ndarray]:
    """Outputs, loss and all gradients in one vector, in the order of the oracle's paths."""
    config = TransformerConfig(**{**vars(CONFIG), "attention": attention})
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: MultimodalTransformer(config, rngs=nnx.Rngs(0))))

    @jax.jit
    def run(parameters: Any, batch: PaddedBatch) -> Any:
        def objective(parameters: Any) -> Any:
            outputs = nnx.merge(graphdef, parameters)(batch)
            return cross_entropy(outputs, batch.targets, batch.sample_mask), outputs

        return jax.value_and_grad(objective, has_aux=True)(parameters)

    (loss, outputs), gradients = run(golden_parameters(), golden_batch())
    flat = np.concatenate([np.ravel(x) for x in apart(CONFIG, gradients).values()])
    return {"outputs": np.asarray(outputs), "loss": np.asarray(loss), "gradients": flat}


if __name__ == "__main__":
    np.savez_compressed(GOLDEN, **golden_results())  # type: ignore[arg-type]
