"""Attention tile by tile: several attentions at once, samples of several tiles, wherever they lie."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad.models.tiled import TILE, Attention, Heads, Place, tiled_attentions

H, D = 2, 4
WIDTH = H * D
LENGTHS = ((TILE + 1, 0, 3, 2 * TILE, 5), (7, 40, 0, 3 * TILE - 1, 1))
COUNTS = (140, 160)  # positions of each modality, padding at the end
PAIRS = ((0, 1), (1, 0), (0, 0))
FIRST = (0, COUNTS[0])  # where a modality's keys begin
ENDS = tuple(np.cumsum([0, *(COUNTS[target] for target, _ in PAIRS)]).tolist())


def end_to_end(lengths, reverse=False):
    """Where samples begin that lie one after the other, the last of them first in reverse."""
    order = np.arange(len(lengths))[:: -1 if reverse else 1]
    starts = np.zeros(len(lengths), np.int32)
    starts[order] = np.cumsum([0, *np.asarray(lengths)[order]])[:-1]
    return starts


def attentions():
    """Keys and values of the second reader of modality 0 lie in further columns."""
    columns = (0, 0, 2 * WIDTH)
    return tuple(
        Attention(*pair, Place(0, start), Place(1, FIRST[pair[1]], column), Place(1, FIRST[pair[1]], column + WIDTH))
        for pair, start, column in zip(PAIRS, ENDS, columns, strict=False)
    )


def arrays(seed=0):
    rng = np.random.default_rng(seed)
    shapes = (ENDS[-1], WIDTH), (sum(COUNTS), 4 * WIDTH)
    return tuple(jnp.asarray(rng.standard_normal(shape), jnp.float32) for shape in shapes)


def by_tiles(inputs, reverse=False):
    starts = tuple(jnp.asarray(end_to_end(x, reverse), jnp.int32) for x in LENGTHS)
    lengths = tuple(jnp.asarray(x, jnp.int32) for x in LENGTHS)
    return tiled_attentions(attentions(), Heads(H, D), None, inputs, starts, lengths)


def by_formula(inputs, reverse=False):
    """Sample by sample, over the real positions alone."""
    out = jnp.zeros((ENDS[-1], WIDTH))
    for a in attentions():
        for start, length, key_start, keys in zip(
            end_to_end(LENGTHS[a.target], reverse),
            LENGTHS[a.target],
            end_to_end(LENGTHS[a.source], reverse),
            LENGTHS[a.source],
            strict=True,
        ):
            if not length or not keys:
                continue
            rows = slice(a.query.start + start, a.query.start + start + length)
            others = slice(a.key.start + key_start, a.key.start + key_start + keys)
            query, key, value = (
                inputs[place.array][at, place.column : place.column + WIDTH].reshape(-1, H, D)
                for place, at in ((a.query, rows), (a.key, others), (a.value, others))
            )
            weights = jax.nn.softmax(jnp.einsum("thd,shd->hts", query, key) * D**-0.5, axis=-1)
            out = out.at[rows].set(jnp.einsum("hts,shd->thd", weights, value).reshape(-1, WIDTH))
    return out


def total(attend, inputs):
    weights = np.random.default_rng(5).standard_normal((ENDS[-1], WIDTH)).astype(np.float32)
    return (jnp.sin(attend(inputs)) * weights).sum()


def curvature(attend, inputs):
    """Of the gradient, along a direction."""
    direction = arrays(seed=7)
    gradient = jax.grad(partial(total, attend))(inputs)
    return sum((x * y).sum() for x, y in zip(gradient, direction, strict=True))


@pytest.mark.parametrize("reverse", [pytest.param(False, marks=pytest.mark.slow), True])
def test_results_are_those_of_the_formula_wherever_samples_lie(reverse):
    """In reverse a sample's windows overlap those that were written before."""
    got, wanted = by_tiles(arrays(), reverse), by_formula(arrays(), reverse)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert not np.asarray(got)[np.asarray(wanted).sum(axis=1) == 0].any()


@pytest.mark.slow
@pytest.mark.parametrize(("function", "tolerance"), [(total, 2e-6), (curvature, 2e-5)])
def test_gradients_of_both_orders_are_those_of_the_formula(function, tolerance):
    got, wanted = (jax.jit(jax.grad(partial(function, attend)))(arrays()) for attend in (by_tiles, by_formula))
    for one, other in zip(got, wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=tolerance * float(jnp.abs(other).max()))
    beyond = [first + sum(lengths) for first, lengths in zip(FIRST, LENGTHS, strict=True)]
    assert not got[1][beyond[0] : FIRST[1]].any()
    assert not got[1][beyond[1] :].any()


def test_the_program_does_not_grow_with_lengths_or_attentions():
    def equations(count, rows):
        lengths = (jnp.zeros(3, jnp.int32),)
        many = tuple(Attention(0, 0, Place(0, rows * i), Place(1), Place(1, 0, WIDTH)) for i in range(count))
        inputs = jnp.zeros((count * rows, WIDTH)), jnp.zeros((rows, 2 * WIDTH))
        attend = partial(tiled_attentions, many, Heads(H, D), None)
        text = str(jax.make_jaxpr(jax.grad(lambda inputs: attend(inputs, lengths, lengths).sum()))(inputs))
        return text.count("dot_general")

    assert equations(1, 32) == equations(6, 320)
