"""The multimodal transformer once more, in PyTorch: the same parameters, the same arithmetic, eager execution.

It is written as one would write it for PyTorch: ``conv1d``, ``layer_norm``, ``scaled_dot_product_attention`` with a
Boolean mask of the keys, and the fused AdamW; without padding, products of all positions at once, and attention of
nested tensors, FlexAttention with a mask of samples, or attention sample by sample. On a GPU batches are pinned and
copied asynchronously, and a step waits for nothing: its loss stays on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import permutations
from typing import Any

import numpy as np

from experiments.lib.twin_positions import EndToEnd, Rows
from multimodal_pad.models import TransformerConfig
from multimodal_pad.models.embedding import sinusoidal_positions

torch: Any = import_module("torch")
functional = torch.nn.functional

EPSILON = 1e-6  # Flax's, in a layer norm

Tensors = Mapping[str, Any]
Positions = Rows | EndToEnd
Samples = list[Mapping[str, np.ndarray]]


class Twin(torch.nn.Module):
    """The model on tensors, without dropout.

    Args:
        config: of the model.
        parameters: its arrays by path, ``/`` between the parts, as ``jax_side.parameters_of`` gives them.
    """

    def __init__(self, config: TransformerConfig, parameters: Mapping[str, np.ndarray]) -> None:
        super().__init__()
        self.config = config
        self.weights = torch.nn.ParameterDict()
        for path, array in parameters.items():
            for name, tensor in _torch_layout(path, torch.from_numpy(np.array(array)), config):
                self.weights[name.replace("/", "-")] = torch.nn.Parameter(tensor)
        longest = 1 + 2048
        self.register_buffer("positions", torch.from_numpy(sinusoidal_positions(longest, config.d_model)))

    def forward(self, features: Tensors, positions: Mapping[str, Positions]) -> Any:
        """Compute outputs ``(B, num_outputs)`` of features or token ids, laid out by their positions."""
        names = tuple(self.config.modalities)
        embedded = {name: self._embed(name, features[name], positions[name]) for name in names}
        crossed: dict[str, list[Any]] = {name: [] for name in names}
        for pair, (target, source) in enumerate(permutations(names, 2)):
            path = f"crossmodal/{pair}"
            layers = self.config.crossmodal_layers
            at = positions[target], positions[source]
            crossed[target].append(self._encode(path, layers, *at, embedded[target], embedded[source]))
        readouts = []
        for number, name in enumerate(names):
            x = torch.cat(crossed[name], -1) if crossed[name] else embedded[name]
            layers, at = self.config.memory_layers or 1, (positions[name], positions[name])
            readouts.append(positions[name].mean(self._encode(f"memory/{number}", layers, *at, x, None)))
        readout = torch.cat(readouts, -1)
        hidden = self._linear("head_contract", functional.relu(self._linear("head_expand", readout)))
        return self._linear("head_output", readout + hidden)

    def _embed(self, name: str, x: Any, positions: Any) -> Any:
        modality = self.config.modalities[name]
        if modality.vocabulary_size is not None:
            ids = positions.real(x[..., None])[..., 0].long()
            x = functional.embedding(ids, self._get(f"embed/{name}/project/embedding"))
        else:
            x = positions.real(x)
            kernel = self._get(f"embed/{name}/project/kernel")
            x = functional.linear(x, kernel[..., 0]) if modality.kernel_size == 1 else positions.convolve(x, kernel)
        return positions.real(x * self.config.d_model**0.5 + positions.rows_of(self.positions))

    def _encode(self, path: str, layers: int, target: Any, source: Any, x: Any, source_x: Any) -> Any:
        for layer in range(layers):
            at = f"{path}/layers/{layer}"
            normed = self._norm(f"{at}/attention_norm", x)
            other = normed if source_x is None else self._norm(f"{at}/attention_norm", source_x)
            key, value = self._linear(f"{at}/key_value", other).chunk(2, -1)
            query = self._heads(self._linear(f"{at}/query", normed))
            attended = target.attend(source, query, self._heads(key), self._heads(value))
            attended = self._linear(f"{at}/output", attended.flatten(-2))
            x = x + target.where_present(source, attended)
            hidden = functional.relu(self._linear(f"{at}/expand", self._norm(f"{at}/feed_forward_norm", x)))
            x = x + self._linear(f"{at}/contract", hidden)
        return self._norm(f"{path}/norm", x)

    def _heads(self, x: Any) -> Any:
        return x.unflatten(-1, (self.config.num_heads, -1))

    def _norm(self, path: str, x: Any) -> Any:
        return functional.layer_norm(
            x, x.shape[-1:], self._get(f"{path}/scale"), self._get(f"{path}/bias"), eps=EPSILON
        )

    def _linear(self, path: str, x: Any) -> Any:
        return functional.linear(x, self._get(f"{path}/kernel"), self._get(f"{path}/bias"))

    def _get(self, path: str) -> Any:
        return self.weights[path.replace("/", "-")]


def make_optimizer(model: Any, learning_rate: float) -> Any:
    """Make AdamW with the defaults of ``multimodal_pad.training.make_optimizer``, without its clipping."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2, eps=1e-8, fused=True)


def train_step(
    model: Any,
    optimizer: Any,
    features: Tensors,
    positions: Mapping[str, Positions],
    targets: Any,
    *,
    autocast: bool = False,
) -> Any:
    """Take one step, clipped to a global norm of 0.8; return the loss, on the device.

    ``autocast`` multiplies matrices in bfloat16, as :func:`torch.autocast` does.
    """
    optimizer.zero_grad()
    with torch.autocast(targets.device.type, torch.bfloat16, enabled=autocast):
        loss = functional.cross_entropy(model(features, positions), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.8, foreach=True)
    optimizer.step()
    return loss.detach()


def best_device() -> Any:
    """Return the GPU where this build of PyTorch has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def platform() -> str:
    """Return JAX's name for the kind of device that the twin runs on: ``"gpu"`` or ``"cpu"``."""
    return "gpu" if best_device().type == "cuda" else "cpu"


@contextmanager
def float32_products(precision: str) -> Iterator[None]:
    """Multiply float32 matrices on a GPU in TF32 (``"high"``), as JAX does by default, or exactly (``"highest"``).

    On CPU nothing changes: there JAX multiplies float32 as it is, and PyTorch's default does, too.
    """
    if best_device().type != "cuda":
        yield
        return
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = precision != "highest"
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def pin(batch: Any) -> Any:
    """Pin a batch of :func:`pad` or :func:`lay_end_to_end`, for asynchronous copies to a GPU, if there is one."""
    return _each(batch, lambda tensor: tensor.pin_memory()) if best_device().type == "cuda" else batch


def to_device(batch: Any) -> Any:
    """Copy a batch to :func:`best_device`; a pinned one is copied while the caller goes on."""
    device = best_device()
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True)) if device.type == "cuda" else batch


def _each(batch: Any, change: Any) -> Any:
    features, positions, targets = batch
    return (
        {name: change(tensor) for name, tensor in features.items()},
        {name: each.changed(change) for name, each in positions.items()},
        change(targets),
    )


def pad(samples: Samples, names: tuple[str, ...], lengths: Mapping[str, int] | None) -> Any:
    """Pad by ``pad_sequence``, with masks of the lengths, as in Algorithm 1; to ``lengths`` where they are given."""
    features, positions = {}, {}
    for name in names:
        sequences = [torch.from_numpy(sample[name]) for sample in samples]
        features[name] = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        real = torch.tensor([len(sequence) for sequence in sequences])
        if lengths is not None:
            missing = lengths[name] - features[name].shape[1]
            features[name] = functional.pad(features[name], (0, 0) * (features[name].ndim - 2) + (0, missing))
        positions[name] = Rows(torch.arange(features[name].shape[1]) < real[:, None])
    return features, positions, _targets(samples)


def lay_end_to_end(samples: Samples, names: tuple[str, ...], attention: str) -> Any:
    """Lay the samples one after the other, without padding; see :class:`EndToEnd` for the ways to attend."""
    features = {name: torch.cat([torch.from_numpy(sample[name]) for sample in samples]) for name in names}
    lengths = {name: tuple(len(sample[name]) for sample in samples) for name in names}
    return features, {name: EndToEnd.of(lengths[name], attention) for name in names}, _targets(samples)


def _targets(samples: Samples) -> Any:
    return torch.tensor(np.array([sample["targets"] for sample in samples])).long()


def _torch_layout(path: str, array: Any, config: TransformerConfig) -> list[tuple[str, Any]]:
    """Return names and tensors in PyTorch's layout: encoders and layers apart, output features first."""
    part, *rest = path.split("/")
    named = {path: array}
    if part in ("crossmodal", "memory"):
        named = {"/".join([part, str(number), *rest]): tensor for number, tensor in enumerate(array)}
        if rest[0] == "layers":
            named = {
                name.replace("/layers/", f"/layers/{layer}/"): one
                for name, tensor in named.items()
                for layer, one in enumerate(tensor)
            }
    if rest[-1] == "kernel" and part == "embed":
        size = config.modalities[rest[0]].kernel_size
        named = {name: tensor.reshape(size, -1, tensor.shape[-1]).permute(2, 1, 0) for name, tensor in named.items()}
    elif rest[-1] == "kernel":
        named = {name: tensor.T for name, tensor in named.items()}
    return [(name, tensor.contiguous()) for name, tensor in named.items()]
