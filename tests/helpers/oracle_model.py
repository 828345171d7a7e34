"""The transformer as its first version was: an encoder of its own for each pair and each memory, one after the other.

Written plainly, and differentiated by JAX alone: attention that keeps its scores, layer norms with scale and bias where
the formula has them, no stacked parameter. Parameters are arrays by path, for instance
``crossmodal/text_from_audio/layers/query/kernel``, with those of an encoder's layers stacked along their first axis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from multimodal_pad import PaddedBatch
from multimodal_pad.models import TransformerConfig
from multimodal_pad.models.embedding import sinusoidal_positions

Parameters = dict[str, Any]


def oracle_outputs(config: TransformerConfig, parameters: Parameters, batch: PaddedBatch) -> jax.Array:
    """Outputs ``(B, num_outputs)`` without dropout."""
    names = tuple(config.modalities)
    model = _Oracle(config, parameters)
    masks = {name: jnp.asarray(mask) for name, mask in batch.masks.items()}
    embedded = {name: model.embed(name, jnp.asarray(batch.features[name]), masks[name]) for name in names}
    readouts = []
    for target in names:
        crossed = [
            model.encode(
                f"crossmodal/{target}_from_{source}",
                config.crossmodal_layers,
                embedded[target],
                embedded[source],
                masks[source],
            )
            for source in names
            if source != target
        ]
        x = jnp.concatenate(crossed, axis=-1) if crossed else embedded[target]
        memory = model.encode(f"memory/{target}", config.memory_layers or 1, x, None, masks[target])
        total = jnp.where(masks[target][..., None], memory, 0).sum(axis=1, dtype=jnp.float32)
        readouts.append(total / jnp.maximum(masks[target].sum(axis=1), 1)[:, None])
    readout = jnp.concatenate(readouts, axis=-1)
    hidden = jax.nn.relu(model.dense("head_expand", readout))
    return model.dense("head_output", readout + model.dense("head_contract", hidden))


class _Oracle:
    def __init__(self, config: TransformerConfig, parameters: Parameters) -> None:
        self.config, self.parameters, self.dtype = config, parameters, jnp.dtype(config.dtype)

    def embed(self, name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
        modality, width, real = self.config.modalities[name], self.config.d_model, mask[..., None]
        if modality.vocabulary_size is not None:
            x = self.parameters[f"embed/{name}/project/embedding"][jnp.where(mask, x, 0)].astype(self.dtype)
        else:
            reach, length = modality.kernel_size // 2, x.shape[1]
            x = jnp.pad(jnp.where(real, x.reshape(*mask.shape, -1), 0), ((0, 0), (reach, reach), (0, 0)))
            x = jnp.concatenate([x[:, i : i + length] for i in range(modality.kernel_size)], axis=-1)
            x = x.astype(self.dtype) @ self.parameters[f"embed/{name}/project/kernel"].astype(self.dtype)
        x = x * np.sqrt(width).astype(np.float32)
        x = x + sinusoidal_positions(x.shape[1], width).astype(x.dtype)[None]
        return jnp.where(real, x, 0).astype(self.dtype)

    def encode(self, path: str, layers: int, x: jax.Array, source: jax.Array | None, keys: jax.Array) -> jax.Array:
        present = keys.any(axis=1)[:, None, None]
        for layer in range(layers):
            at = f"{path}/layers"
            normed = self.norm(f"{at}/attention_norm", x, layer)
            other = normed if source is None else self.norm(f"{at}/attention_norm", source, layer)
            key, value = jnp.split(self.dense(f"{at}/key_value", other, layer), 2, axis=-1)
            mixed = self.attend(self.dense(f"{at}/query", normed, layer), key, value, keys)
            x = x + jnp.where(present, self.dense(f"{at}/output", mixed, layer), 0)
            hidden = jax.nn.relu(self.dense(f"{at}/expand", self.norm(f"{at}/feed_forward_norm", x, layer), layer))
            x = x + self.dense(f"{at}/contract", hidden, layer)
        return self.norm(f"{path}/norm", x)

    def attend(self, query: jax.Array, key: jax.Array, value: jax.Array, keys: jax.Array) -> jax.Array:
        heads = self.config.num_heads
        query, key, value = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
        scores = jnp.einsum("bthd,bshd->bhts", query, key, preferred_element_type=jnp.float32)
        # A missing source attends to its first position; the result is thrown away.
        first = jnp.arange(keys.shape[1])[None] == 0
        let_in = keys | (first & ~keys.any(axis=1, keepdims=True))
        scores = jnp.where(let_in[:, None, None], scores / np.float32(np.sqrt(query.shape[-1])), -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
        return jnp.einsum("bhts,bshd->bthd", weights, value).reshape(*query.shape[:2], -1)

    def norm(self, path: str, x: jax.Array, layer: int | None = None) -> jax.Array:
        wide = x.astype(jnp.float32)
        mean = wide.mean(axis=-1, keepdims=True)
        inverse = jax.lax.rsqrt(jnp.square(wide - mean).mean(axis=-1, keepdims=True) + 1e-6)
        scale, bias = self.get(f"{path}/scale", layer), self.get(f"{path}/bias", layer)
        return ((wide - mean) * inverse * scale[None, None] + bias[None, None]).astype(x.dtype)

    def dense(self, path: str, x: jax.Array, layer: int | None = None) -> jax.Array:
        dtype = jnp.float32 if path.startswith("head") else self.dtype
        kernel, bias = (self.get(f"{path}/{part}", layer).astype(dtype) for part in ("kernel", "bias"))
        return x.astype(dtype) @ kernel + jnp.expand_dims(bias, tuple(range(x.ndim - 1)))

    def get(self, path: str, layer: int | None) -> jax.Array:
        array = self.parameters[path]
        return array if layer is None else array[layer]


def stacked_paths(config: TransformerConfig) -> Iterator[tuple[str, list[str]]]:
    """Parts of the model whose parameters are stacked, and the oracle's parts in the order of that stack."""
    names = tuple(config.modalities)
    yield "crossmodal", [f"crossmodal/{target}_from_{source}" for target, source in permutations(names, 2)]
    yield "memory", [f"memory/{name}" for name in names]


def apart(config: TransformerConfig, state: Any) -> Parameters:
    """The parameters of a model, or their gradients, as the oracle's: in the order of its paths."""
    flat = nnx.to_flat_state(state)
    arrays = {"/".join(map(str, path)): x[...] for path, x in zip(flat.paths, flat.leaves, strict=True)}
    parts = dict(stacked_paths(config))
    found: Parameters = {}
    for path, array in arrays.items():
        part, _, rest = path.partition("/")
        if part in parts:
            found |= {f"{old}/{rest}": array[i] for i, old in enumerate(parts[part])}
        else:
            found[path] = array
    return dict(sorted(found.items(), key=lambda item: item[0].split("/")))


def together(config: TransformerConfig, parameters: Mapping[str, Any], state: nnx.State) -> nnx.State:
    """The oracle's parameters as those of a model, of which ``state`` gives the structure."""
    parts = dict(stacked_paths(config))
    flat = nnx.to_flat_state(state)
    leaves = []
    for path, leaf in zip(flat.paths, flat.leaves, strict=True):
        part, *rest = map(str, path)
        if part in parts:
            value = np.stack([np.asarray(parameters["/".join([old, *rest])]) for old in parts[part]])
        else:
            value = np.asarray(parameters["/".join([part, *rest])])
        assert value.shape == leaf.shape, path
        leaves.append(leaf.replace(value))
    return nnx.from_flat_state(zip(flat.paths, leaves, strict=True))
