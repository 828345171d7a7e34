"""Positions of samples in a batch of the twin: a row each, or end to end, PyTorch's layout without padding."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

torch: Any = import_module("torch")
flex: Any = import_module("torch.nn.attention.flex_attention")
functional = torch.nn.functional

LEAST_FLEX_WIDTH = 16
"""Least width of a head for FlexAttention's kernels; narrower ones are filled up with zeros."""

Change = Callable[[Any], Any]


class Rows(NamedTuple):
    """The positions of one modality, padded: tensors are ``(B, L, width)``.

    Attributes:
        mask: bool ``(B, L)``, True = real.
    """

    mask: Any

    def changed(self, change: Change) -> Rows:
        """Return the same with each tensor changed, such as copied to a device."""
        return Rows(change(self.mask))

    def real(self, x: Any) -> Any:
        """Return ``x``, 0 at padding."""
        return x.masked_fill(~self.mask[..., None], 0)

    def convolve(self, x: Any, kernel: Any) -> Any:
        """Convolve with a kernel ``(d_model, width, size)`` that sees zeros beyond a row."""
        return functional.conv1d(x.transpose(1, 2), kernel, padding=kernel.shape[-1] // 2).transpose(1, 2)

    def rows_of(self, table: Any) -> Any:
        """Return the rows of a table for the place of each position."""
        return table[: self.mask.shape[1]]

    def attend(self, source: Rows, query: Any, key: Any, value: Any) -> Any:
        """Attend ``(B, L, heads, width)`` to the real positions of a source; undefined where it has none."""
        first = torch.zeros_like(source.mask)
        first[:, 0] = True  # real in every row, since a row without keys gives NaN, gradients included
        keys = (source.mask | (first & ~source.mask.any(1, keepdim=True)))[:, None, None, :]
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=keys).transpose(1, 2)

    def where_present(self, source: Rows, x: Any) -> Any:
        """Return ``x``, 0 in samples that lack the source."""
        return torch.where(source.mask.any(1)[:, None, None], x, 0.0)

    def mean(self, x: Any) -> Any:
        """Compute the mean over the real positions of each sample, ``(B, width)``."""
        return self.real(x).sum(1) / self.mask.sum(1).clamp(min=1)[:, None]


class EndToEnd(NamedTuple):
    """The positions of one modality without padding: tensors are ``(N, width)``, one sample after the other.

    Attributes:
        lengths: of the B samples, on the host.
        offsets: int64 ``(B + 1,)``: where samples begin, and where the last one ends.
        segments: int64 ``(N,)``: the sample of each position.
        places: int64 ``(N,)``: the place of each position in its sample.
        attention: ``"nested"``, a call on nested tensors with the jagged layout; ``"flex"``, FlexAttention with a mask
            of samples; or ``"sample"``, a call per sample.
    """

    lengths: tuple[int, ...]
    offsets: Any
    segments: Any
    places: Any
    attention: str

    @classmethod
    def of(cls, lengths: tuple[int, ...], attention: str) -> EndToEnd:
        """Make the positions of samples of these lengths."""
        counts = torch.tensor(lengths)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
        segments = torch.repeat_interleave(torch.arange(len(lengths)), counts)
        return cls(lengths, offsets, segments, torch.arange(len(segments)) - offsets[segments], attention)

    def changed(self, change: Change) -> EndToEnd:
        """Return the same with each tensor changed, such as copied to a device."""
        return self._replace(offsets=change(self.offsets), segments=change(self.segments), places=change(self.places))

    def real(self, x: Any) -> Any:
        """Return ``x``, since nothing is padding."""
        return x

    def convolve(self, x: Any, kernel: Any) -> Any:
        """Convolve with a kernel ``(d_model, width, size)`` that sees zeros beyond a sample."""
        reach, counts = kernel.shape[-1] // 2, self.offsets.diff()[self.segments]
        beside = []
        for tap in range(-reach, reach + 1):
            place = self.places + tap
            inside = (place >= 0) & (place < counts)
            beside.append(torch.where(inside[:, None], x.roll(-tap, 0), 0.0))
        return functional.linear(torch.stack(beside, -1).flatten(1), kernel.flatten(1))

    def rows_of(self, table: Any) -> Any:
        """Return the rows of a table for the place of each position."""
        return table[self.places]

    def attend(self, source: EndToEnd, query: Any, key: Any, value: Any) -> Any:
        """Attend ``(N, heads, width)`` from each sample to its own positions of a source; 0 where it has none."""
        if self.attention == "flex":
            return self._flex(source, query, key, value)
        if self.attention == "nested":
            attended = functional.scaled_dot_product_attention(
                self._jagged(query), source._jagged(key), source._jagged(value)
            )
            return attended.transpose(1, 2).values()
        parts = zip(query.split(self.lengths), key.split(source.lengths), value.split(source.lengths), strict=True)
        return torch.cat([_attend_alone(*part) for part in parts])

    def _jagged(self, x: Any) -> Any:
        limits = {
            "min_seqlen": min(self.lengths),
            "max_seqlen": max(self.lengths),
        }  # otherwise they would be read from the device
        return torch.nested.nested_tensor_from_jagged(x.contiguous(), self.offsets, **limits).transpose(1, 2)

    def _flex(self, source: EndToEnd, query: Any, key: Any, value: Any) -> Any:
        mask = flex.create_block_mask(
            lambda _b, _h, i, j: self.segments[i] == source.segments[j],
            *(None, None, len(query), len(key)),
            device=query.device,
        )
        width = query.shape[-1]
        missing = max(0, LEAST_FLEX_WIDTH - width)
        query, key, value = (functional.pad(x, (0, missing)).transpose(0, 1)[None] for x in (query, key, value))
        attended = _flex_attention(query.is_cuda)(query, key, value, block_mask=mask, scale=width**-0.5)
        return attended[0, ..., :width].transpose(0, 1)

    def where_present(self, source: EndToEnd, x: Any) -> Any:
        """Return ``x``, 0 in samples that lack the source."""
        return torch.where((source.offsets.diff() > 0)[self.segments, None], x, 0.0)

    def mean(self, x: Any) -> Any:
        """Compute the mean over the positions of each sample, ``(B, width)``."""
        total = x.new_zeros(len(self.lengths), x.shape[-1]).index_add(0, self.segments, x)
        return total / self.offsets.diff().clamp(min=1)[:, None]


def _attend_alone(query: Any, key: Any, value: Any) -> Any:
    if not len(key):
        return torch.zeros_like(query)
    query, key, value = (x.transpose(0, 1)[None] for x in (query, key, value))
    return functional.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


@cache
def _flex_attention(compiled: bool) -> Any:
    """Return FlexAttention, compiled where it has kernels; executed eagerly it holds all scores."""
    return torch.compile(flex.flex_attention, dynamic=True) if compiled else flex.flex_attention
