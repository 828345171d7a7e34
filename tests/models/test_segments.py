"""Attention and means over samples that lie end to end: each sample alone, whatever lies beside it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import PaddingError
from multimodal_pad.models import masked_attention, segment_attention, segment_mean, select_implementation
from multimodal_pad.models.attention_choice import AttentionDevice
from multimodal_pad.models.segments import BLOCK
from tests.helpers.packed import tile_pairs

IMPLEMENTATIONS = ["tiled", "xla", "paired"]
"""``paired`` is ``xla`` over the pairs of tiles that the host lists."""
H, D = 2, 4
QUERIES = np.array([7, 0, 1, 33, 5, 12])
KEYS = np.array([9, 4, 0, 20, 1, 40])
NT, NS = BLOCK + 9, 80
"""More queries than a block holds, and padding behind both."""


def starts(lengths):
    return np.cumsum([0, *lengths])[:-1]


def arrays(dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(jnp.asarray(rng.standard_normal((n, H, D)), dtype) for n in (NT, NS, NS))


def attend(implementation, q, k, v, queries=QUERIES, keys=KEYS, **options):
    if implementation == "paired":
        implementation, options["tile_pairs"] = "xla", tile_pairs(queries, keys, NT, NS)
    lengths = {"query_lengths": jnp.asarray(queries), "key_lengths": jnp.asarray(keys)}
    return segment_attention(q, k, v, **lengths, implementation=implementation, **options)


def total(implementation, arrays):
    weights = np.random.default_rng(1).standard_normal((NT, H, D)).astype(np.float32)
    return (jnp.sin(attend(implementation, *arrays)) * weights).sum()


def gradients(implementation, arrays):
    return jax.jit(jax.grad(partial(total, implementation)))(arrays)


def reference(q, k, v):
    """Sample by sample in float64."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.zeros((NT, H, D))
    for begin, length, key_begin, keys in zip(starts(QUERIES), QUERIES, starts(KEYS), KEYS, strict=True):
        if not length or not keys:
            continue
        mine, others = slice(begin, begin + length), slice(key_begin, key_begin + keys)
        scores = np.einsum("thd,shd->hts", q[mine], k[others]) / np.sqrt(D)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        out[mine] = np.einsum("hts,shd->thd", weights / weights.sum(axis=-1, keepdims=True), v[others])
    return out


def by_rows(arrays):
    """The same through ``masked_attention``, a row for each sample."""

    def rows(x, lengths):
        index = starts(lengths)[:, None] + np.arange(max(lengths))[None]
        return x[np.minimum(index, len(x) - 1)]

    q, k, v = (rows(x, lengths) for x, lengths in zip(arrays, (QUERIES, KEYS, KEYS), strict=True))
    lengths = {"query_lengths": jnp.asarray(QUERIES), "key_lengths": jnp.asarray(KEYS)}
    out = masked_attention(q, k, v, **lengths, implementation="xla")
    weights = np.random.default_rng(1).standard_normal((NT, H, D)).astype(np.float32)
    real = np.arange(max(QUERIES))[None] < QUERIES[:, None]
    return jnp.where(real[..., None, None], jnp.sin(out) * rows(weights, QUERIES), 0).sum()


def spoilt(arrays, value):
    return tuple(x.at[n:].set(value) for x, n in zip(arrays, (QUERIES.sum(), KEYS.sum(), KEYS.sum()), strict=True))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_equals_a_float64_reference_per_sample(implementation):
    got, wanted = np.asarray(attend(implementation, *arrays())), reference(*arrays())
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert (got[(wanted == 0).all(axis=(1, 2))] == 0).all(), "padding, and missing keys"


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients_are_those_of_masked_attention(implementation):
    wanted = jax.jit(jax.grad(by_rows))(arrays())
    for one, other in zip(gradients(implementation, arrays()), wanted, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_stands_behind_the_last_sample_changes_nothing_exactly(implementation, value):
    dirty = spoilt(arrays(), value)
    np.testing.assert_array_equal(attend(implementation, *dirty), attend(implementation, *arrays()))
    for one, other in zip(gradients(implementation, dirty), gradients(implementation, arrays()), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_padding_and_missing_keys_get_exactly_zero(implementation):
    dq, dk, dv = map(np.asarray, gradients(implementation, arrays()))
    missing = starts(QUERIES)[2]
    assert KEYS[2] == 0
    assert (dq[missing : missing + QUERIES[2]] == 0).all()
    unread = slice(starts(KEYS)[1], starts(KEYS)[1] + KEYS[1])
    assert QUERIES[1] == 0
    assert (dk[unread] == 0).all()
    assert (dv[unread] == 0).all()
    assert (dq[QUERIES.sum() :] == 0).all()
    assert (dk[KEYS.sum() :] == 0).all()
    assert (dv[KEYS.sum() :] == 0).all()


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_other_samples_change_nothing_exactly(implementation):
    """With any finite values: scores of 1e30 of another sample are masked, and not made small."""
    sample = 3
    (q, mine), (k, keys), (v, _) = (
        (x, slice(starts(n)[sample], starts(n)[sample] + n[sample]))
        for x, n in zip(arrays(), (QUERIES, KEYS, KEYS), strict=True)
    )
    others = [jnp.full_like(x, 1e15).at[at].set(x[at]) for x, at in ((q, mine), (k, keys), (v, keys))]
    np.testing.assert_array_equal(attend(implementation, *others)[mine], attend(implementation, q, k, v)[mine])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_neighbours_that_are_not_masked_would_be_seen(implementation):
    """The tests above can fail: as one sample of all positions, the outputs move."""
    got = attend(implementation, *arrays(), queries=QUERIES.sum(keepdims=True), keys=KEYS.sum(keepdims=True))
    assert np.abs(got - reference(*arrays())).max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_gradients_of_the_second_order(implementation):
    def curvature(arrays):
        return sum((x**2).sum() for x in jax.grad(partial(total, implementation))(arrays))

    def wanted(arrays):
        return sum((x**2).sum() for x in jax.grad(by_rows)(arrays))

    for one, other in zip(jax.jit(jax.grad(curvature))(arrays()), jax.jit(jax.grad(wanted))(arrays()), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * float(jnp.abs(other).max()))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_segments_in_bfloat16(implementation):
    got = attend(implementation, *arrays(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(got, np.float32), reference(*arrays()), atol=5e-2)


def test_a_pair_that_is_not_listed_would_be_missed():
    listed = tile_pairs(QUERIES, KEYS, NT, NS)
    listed = np.where(np.arange(len(listed))[:, None] == 0, [0, -1], listed)
    got = segment_attention(*arrays(), query_lengths=QUERIES, key_lengths=KEYS, tile_pairs=listed, implementation="xla")
    assert np.abs(got - reference(*arrays())).max() > 0.1


def test_scores_of_all_queries_are_never_in_memory_at_once():
    program = str(jax.make_jaxpr(jax.grad(partial(total, "xla")))(arrays()))
    assert f"[{H},{BLOCK},{NS}]" in program
    assert f",{H},{BLOCK},{NS}]" not in program
    assert f"{NT},{NS}]" not in program


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("precision", [None, "high", "highest"])
def test_the_precision_reaches_every_product_of_segments(implementation, precision):
    with jax.default_matmul_precision(None):
        gradient = jax.grad(lambda arrays: attend(implementation, *arrays, precision=precision).sum())
        text = str(jax.make_jaxpr(gradient)(arrays()))
    named = text.count(f"Precision.{(precision or '').upper()}")
    assert text.count("dot_general[") >= 5
    assert ("Precision." in text) == (precision is not None)
    assert precision is None or named >= text.count("dot_general[")


def test_cudnn_asked_for_is_refused():
    with pytest.raises(
        PaddingError, match="got implementation='cudnn', and cuDNN takes padded samples, and not packed"
    ):
        attend("cudnn", *arrays(jnp.bfloat16))


def test_where_cudnn_would_run_packed_batches_take_xla():
    device = AttentionDevice("cuda", (9, 0), 91100)
    assert select_implementation("bfloat16", 64, device).implementation == "cudnn"
    assert select_implementation("bfloat16", 64, device, packed=True).implementation == "xla"
    assert select_implementation("float32", 64, AttentionDevice("cpu"), packed=True).implementation == "tiled"


@pytest.mark.parametrize(("options", "message"), [("flash", "implementation='flash'"), (None, "precision='exact'")])
def test_unknown_options(options, message):
    with pytest.raises(PaddingError, match=f"got {message}; choose one of"):
        attend(options, *arrays(), precision=None if options else "exact")


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_numpy_arrays_are_taken_as_they_are(implementation):
    """A batch holds them until it is on a device."""
    q, k, v = map(np.asarray, arrays())
    plain = {"query_lengths": QUERIES, "key_lengths": KEYS}
    if implementation == "paired":
        plain["tile_pairs"] = tile_pairs(QUERIES, KEYS, NT, NS)
    got = segment_attention(q, k, v, **plain, implementation="xla" if implementation == "paired" else implementation)
    np.testing.assert_array_equal(got, attend(implementation, *arrays()))
    x = q.reshape(NT, -1)
    np.testing.assert_array_equal(segment_mean(x, QUERIES), segment_mean(jnp.asarray(x), jnp.asarray(QUERIES)))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_means_are_those_of_numpy(dtype):
    x = np.array(arrays(dtype)[0]).reshape(NT, -1)
    x[QUERIES.sum() :] = np.nan
    got = segment_mean(jnp.asarray(x), jnp.asarray(QUERIES))
    assert got.dtype == jnp.float32
    for i, (begin, length) in enumerate(zip(starts(QUERIES), QUERIES, strict=True)):
        wanted = x[begin : begin + length].astype(np.float64).mean(axis=0) if length else 0 * x[0].astype(np.float64)
        np.testing.assert_allclose(got[i], wanted, atol=1e-6)


def test_the_gradient_of_a_mean_is_shared_out_and_padding_gets_none():
    x = arrays()[0].reshape(NT, -1).at[QUERIES.sum() :].set(np.inf)
    weights = np.random.default_rng(2).standard_normal((len(QUERIES), H * D)).astype(np.float32)
    gradient = jax.grad(lambda x: (segment_mean(x, jnp.asarray(QUERIES)) * weights).sum())(x)
    each = weights / np.maximum(QUERIES, 1)[:, None].astype(np.float32)
    np.testing.assert_allclose(gradient[: QUERIES.sum()], np.repeat(each, QUERIES, axis=0), rtol=1e-6)
    assert (gradient[QUERIES.sum() :] == 0).all()


def test_no_finite_value_of_another_sample_changes_a_mean():
    x = arrays()[0].reshape(NT, -1)
    mine = slice(starts(QUERIES)[3], starts(QUERIES)[3] + QUERIES[3])
    other = jnp.full_like(x, 1e30).at[mine].set(x[mine])
    one, two = (segment_mean(x, jnp.asarray(QUERIES)) for x in (x, other))
    np.testing.assert_array_equal(one[3], two[3])
    assert (one[0] != two[0]).all()
