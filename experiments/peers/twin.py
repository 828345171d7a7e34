"""The multimodal transformer once more, in PyTorch: the same parameters, the same arithmetic, eager execution.

It is written as one would write it for PyTorch: ``conv1d``, ``layer_norm``, ``scaled_dot_product_attention`` with a
Boolean mask of the keys, and the fused AdamW. On a GPU batches are pinned and copied asynchronously, and a step waits
for nothing: its loss stays on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from itertools import permutations
from typing import Any

import numpy as np

from multimodal_pad.models import TransformerConfig
from multimodal_pad.models.embedding import sinusoidal_positions

torch: Any = import_module("torch")
functional = torch.nn.functional

EPSILON = 1e-6  # Flax's, in a layer norm

Tensors = Mapping[str, Any]


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

    def forward(self, features: Tensors, masks: Tensors) -> Any:
        """Outputs ``(B, num_outputs)`` of ``{m: (B, L_m, F_m)}``, or token ids, and masks ``{m: (B, L_m)}``."""
        names = tuple(self.config.modalities)
        real = {name: masks[name][..., None] for name in names}
        keys = {name: _key_mask(masks[name]) for name in names}
        present = {name: masks[name].any(1)[:, None, None] for name in names}
        embedded = {name: self._embed(name, features[name], real[name]) for name in names}
        crossed: dict[str, list[Any]] = {name: [] for name in names}
        for pair, (target, source) in enumerate(permutations(names, 2)):
            path = f"crossmodal/{pair}"
            layers = self.config.crossmodal_layers
            crossed[target].append(
                self._encode(path, layers, embedded[target], embedded[source], keys[source], present[source])
            )
        readouts = []
        for number, name in enumerate(names):
            x = torch.cat(crossed[name], -1) if crossed[name] else embedded[name]
            memory = self._encode(
                f"memory/{number}", self.config.memory_layers or 1, x, None, keys[name], present[name]
            )
            total = torch.where(real[name], memory, 0.0).sum(1)
            readouts.append(total / masks[name].sum(1).clamp(min=1)[:, None])
        readout = torch.cat(readouts, -1)
        hidden = self._linear("head_contract", functional.relu(self._linear("head_expand", readout)))
        return self._linear("head_output", readout + hidden)

    def _embed(self, name: str, x: Any, real: Any) -> Any:
        modality = self.config.modalities[name]
        if modality.vocabulary_size is not None:
            x = functional.embedding(
                torch.where(real[..., 0], x, 0).long(), self._get(f"embed/{name}/project/embedding")
            )
        else:
            x = torch.where(real, x, 0.0)
            kernel = self._get(f"embed/{name}/project/kernel")
            if modality.kernel_size == 1:
                x = functional.linear(x, kernel[..., 0])
            else:
                x = functional.conv1d(x.transpose(1, 2), kernel, padding=modality.kernel_size // 2).transpose(1, 2)
        x = x * self.config.d_model**0.5 + self.positions[: x.shape[1]]
        return torch.where(real, x, 0.0)

    def _encode(self, path: str, layers: int, x: Any, source: Any, keys: Any, present: Any) -> Any:
        for layer in range(layers):
            at = f"{path}/layers/{layer}"
            normed = self._norm(f"{at}/attention_norm", x)
            other = normed if source is None else self._norm(f"{at}/attention_norm", source)
            key, value = self._linear(f"{at}/key_value", other).chunk(2, -1)
            query = self._heads(self._linear(f"{at}/query", normed))
            attended = functional.scaled_dot_product_attention(
                query, self._heads(key), self._heads(value), attn_mask=keys
            )
            attended = self._linear(f"{at}/output", attended.transpose(1, 2).flatten(2))
            x = x + torch.where(present, attended, 0.0)
            hidden = functional.relu(self._linear(f"{at}/expand", self._norm(f"{at}/feed_forward_norm", x)))
            x = x + self._linear(f"{at}/contract", hidden)
        return self._norm(f"{path}/norm", x)

    def _heads(self, x: Any) -> Any:
        return x.unflatten(-1, (self.config.num_heads, -1)).transpose(1, 2)

    def _norm(self, path: str, x: Any) -> Any:
        return functional.layer_norm(
            x, x.shape[-1:], self._get(f"{path}/scale"), self._get(f"{path}/bias"), eps=EPSILON
        )

    def _linear(self, path: str, x: Any) -> Any:
        return functional.linear(x, self._get(f"{path}/kernel"), self._get(f"{path}/bias"))

    def _get(self, path: str) -> Any:
        return self.weights[path.replace("/", "-")]


def make_optimizer(model: Any, learning_rate: float) -> Any:
    """AdamW as ``multimodal_pad.training.make_optimizer`` has it by default; the gradient is clipped apart."""
    return torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=1e-2, eps=1e-8, fused=True)


def train_step(
    model: Any, optimizer: Any, features: Tensors, masks: Tensors, targets: Any, *, autocast: bool = False
) -> Any:
    """One update, clipped to a global norm of 0.8; the loss, on the device.

    ``autocast`` multiplies matrices in bfloat16, as :func:`torch.autocast` does.
    """
    optimizer.zero_grad()
    with torch.autocast(targets.device.type, torch.bfloat16, enabled=autocast):
        loss = functional.cross_entropy(model(features, masks), targets)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 0.8, foreach=True)
    optimizer.step()
    return loss.detach()


def best_device() -> Any:
    """The GPU where this build of PyTorch has one, and the CPU elsewhere."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def platform() -> str:
    """What JAX calls the kind of device that the twin runs on: ``"gpu"`` or ``"cpu"``."""
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
    """What :func:`pad` gave in memory that a GPU copies from asynchronously; as it is where there is none."""
    return _each(batch, lambda tensor: tensor.pin_memory()) if best_device().type == "cuda" else batch


def to_device(batch: Any) -> Any:
    """What :func:`pad` gave on :func:`best_device`; a pinned batch is copied while the caller goes on."""
    device = best_device()
    return _each(batch, lambda tensor: tensor.to(device, non_blocking=True)) if device.type == "cuda" else batch


def _each(batch: Any, change: Any) -> Any:
    features, masks, targets = batch
    return (
        {name: change(tensor) for name, tensor in features.items()},
        {name: change(tensor) for name, tensor in masks.items()},
        change(targets),
    )


def pad(samples: list[Mapping[str, np.ndarray]], names: tuple[str, ...], lengths: Mapping[str, int] | None) -> Any:
    """``pad_sequence`` and masks of the lengths, as in Algorithm 1; to ``lengths`` where they are given."""
    features, masks = {}, {}
    for name in names:
        sequences = [torch.from_numpy(sample[name]) for sample in samples]
        features[name] = torch.nn.utils.rnn.pad_sequence(sequences, batch_first=True)
        real = torch.tensor([len(sequence) for sequence in sequences])
        if lengths is not None:
            missing = lengths[name] - features[name].shape[1]
            features[name] = functional.pad(features[name], (0, 0) * (features[name].ndim - 2) + (0, missing))
        masks[name] = torch.arange(features[name].shape[1]) < real[:, None]
    targets = torch.tensor(np.array([sample["targets"] for sample in samples])).long()
    return features, masks, targets


def _key_mask(mask: Any) -> Any:
    """Bool ``(B, 1, 1, S)``; where nothing is real the first key is let in, whose value is thrown away after it."""
    first = torch.zeros_like(mask)
    first[:, 0] = True
    return (mask | (first & ~mask.any(1, keepdim=True)))[:, None, None, :]


def _torch_layout(path: str, array: Any, config: TransformerConfig) -> list[tuple[str, Any]]:
    """Names and tensors as PyTorch's functions want them: encoders and layers apart, output features first."""
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
