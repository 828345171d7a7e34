"""Attention and the multimodal transformer in NumPy and float64, one sample at a time, with no padding at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations

import numpy as np

from multimodal_pad.models import TransformerConfig
from multimodal_pad.models.embedding import sinusoidal_positions

EPSILON = 1e-6  # Flax's, in a layer norm

Parameters = Mapping[str, np.ndarray]


def attend(query: np.ndarray, key: np.ndarray, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute attention of one sample and head, of ``(T, D)`` to ``(S, D)``: result ``(T, D)``, weights ``(T, S)``.

    >>> attend(np.zeros((1, 2)), np.ones((2, 2)), np.array([[1.0, 2], [3, 4]]))[0].tolist()
    [[2.0, 3.0]]
    """
    scores = query @ key.T / np.sqrt(query.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ value, weights


def attention(
    arrays: tuple[np.ndarray, ...],
    query_lengths: np.ndarray,
    key_lengths: np.ndarray,
    to_out: np.ndarray,
) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    """Compute ``masked_attention`` of a batch, and the gradients of ``(out * to_out).sum()``.

    Args:
        arrays: query ``(B, T, H, D)``, key and value ``(B, S, H, D)``.
        query_lengths: ``(B,)``.
        key_lengths: ``(B,)``.
        to_out: ``(B, T, H, D)``, the gradient of the result.
    """
    query, key, value = (np.asarray(x, np.float64) for x in arrays)
    out, gradients = np.zeros(query.shape), tuple(np.zeros(x.shape) for x in (query, key, value))
    for b in range(len(query)):
        queries, keys = int(query_lengths[b]), int(key_lengths[b])
        if not queries or not keys:
            continue
        for h in range(query.shape[2]):
            q, k, v = query[b, :queries, h], key[b, :keys, h], value[b, :keys, h]
            out[b, :queries, h], weights = attend(q, k, v)
            to_mixed = to_out[b, :queries, h]
            to_weights = to_mixed @ v.T
            to_scores = weights * (to_weights - (weights * to_weights).sum(axis=1, keepdims=True))
            to_scores /= np.sqrt(query.shape[3])
            gradients[0][b, :queries, h] = to_scores @ k
            gradients[1][b, :keys, h] = to_scores.T @ q
            gradients[2][b, :keys, h] = weights.T @ to_mixed
    return out, gradients


def outputs(
    config: TransformerConfig, parameters: Parameters, samples: Sequence[Mapping[str, np.ndarray]]
) -> np.ndarray:
    """Compute the outputs ``(B, num_outputs)`` of the model without dropout.

    Args:
        config: of the model.
        parameters: float64 arrays by path, as ``peers.jax_side.parameters_of`` names them.
        samples: arrays ``(length, width)`` or token ids ``(length,)`` by modality, unpadded.
    """
    return np.stack([_Sample(config, parameters, sample).outputs() for sample in samples])


class _Sample:
    def __init__(self, config: TransformerConfig, parameters: Parameters, sample: Mapping[str, np.ndarray]) -> None:
        self.config, self.parameters, self.sample = config, parameters, sample

    def outputs(self) -> np.ndarray:
        config, names = self.config, tuple(self.config.modalities)
        embedded = {name: self._embed(name) for name in names}
        crossed: dict[str, list[np.ndarray]] = {name: [] for name in names}
        for pair, (target, source) in enumerate(permutations(names, 2)):
            x, other = embedded[target], embedded[source]
            crossed[target].append(self._encode("crossmodal", pair, config.crossmodal_layers, x, other))
        readouts = []
        for number, name in enumerate(names):
            x = np.concatenate(crossed[name], axis=1) if crossed[name] else embedded[name]
            memory = self._encode("memory", number, config.memory_layers or 1, x, None)
            readouts.append(memory.sum(axis=0) / max(1, len(memory)))
        readout = np.concatenate(readouts)
        hidden = np.maximum(self._linear("head_expand", readout), 0)
        return self._linear("head_output", readout + self._linear("head_contract", hidden))

    def _embed(self, name: str) -> np.ndarray:
        modality, x = self.config.modalities[name], self.sample[name]
        if modality.vocabulary_size is not None:
            x = self.parameters[f"embed/{name}/project/embedding"][x]
        else:
            reach, length = modality.kernel_size // 2, len(x)
            padded = np.pad(
                np.asarray(x, np.float64).reshape(length, modality.feature_width or 0), ((reach, reach), (0, 0))
            )
            beside = [padded[i : i + length] for i in range(modality.kernel_size)]
            x = np.concatenate(beside, axis=1) @ self.parameters[f"embed/{name}/project/kernel"]
        d_model = self.config.d_model
        return x * np.sqrt(d_model) + sinusoidal_positions(len(x), d_model)

    def _encode(self, part: str, number: int, layers: int, x: np.ndarray, source: np.ndarray | None) -> np.ndarray:
        """Run one of the encoders whose parameters are stacked."""
        for layer in range(layers):
            at, one = f"{part}/layers", (number, layer)
            normed = self._norm(f"{at}/attention_norm", x, one)
            other = normed if source is None else self._norm(f"{at}/attention_norm", source, one)
            if len(x) and len(other):
                key, value = np.split(self._linear(f"{at}/key_value", other, one), 2, axis=1)
                query = self._linear(f"{at}/query", normed, one)
                heads = [np.split(array, self.config.num_heads, axis=1) for array in (query, key, value)]
                mixed = np.concatenate([attend(*head)[0] for head in zip(*heads, strict=True)], axis=1)
                x = x + self._linear(f"{at}/output", mixed, one)
            hidden = np.maximum(self._linear(f"{at}/expand", self._norm(f"{at}/feed_forward_norm", x, one), one), 0)
            x = x + self._linear(f"{at}/contract", hidden, one)
        return self._norm(f"{part}/norm", x, (number,))

    def _norm(self, path: str, x: np.ndarray, one: tuple[int, ...]) -> np.ndarray:
        centred = x - x.mean(axis=1, keepdims=True)
        normed = centred / np.sqrt((centred**2).mean(axis=1, keepdims=True) + EPSILON)
        return normed * self._get(f"{path}/scale", one) + self._get(f"{path}/bias", one)

    def _linear(self, path: str, x: np.ndarray, one: tuple[int, ...] = ()) -> np.ndarray:
        return x @ self._get(f"{path}/kernel", one) + self._get(f"{path}/bias", one)

    def _get(self, path: str, one: tuple[int, ...]) -> np.ndarray:
        """Return a parameter of one encoder, or of one layer of it, where it is stacked."""
        return self.parameters[path][one]
