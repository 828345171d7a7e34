import jax
import numpy as np
import pytest
from flax import nnx

from multimodal_pad import PaddedBatch, PaddingError, TransformerCost
from multimodal_pad.compiling import device_bytes
from multimodal_pad.lengths.cost import position_count
from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
from multimodal_pad.training import cross_entropy
from tests.helpers.devices import on_cpu

WIDTHS = {"text": 30, "audio": 74, "visual": 35}
B = 8


def configure(attention, names):
    modalities = {m: ModalityConfig(WIDTHS[m], kernel_size=3 if m == "audio" else 1) for m in names}
    return TransformerConfig(
        modalities, 7, d_model=40, crossmodal_layers=1, memory_layers=1, dropout_rate=0.0, attention=attention
    )


def lower(config, lengths, *, gradient=True):
    """The lowered loss, or its gradient, at one batch shape, for the CPU, whose bytes the cost model is fitted to."""
    names = tuple(config.modalities)
    graphdef, parameters = nnx.split(nnx.eval_shape(lambda: MultimodalTransformer(config, rngs=nnx.Rngs(0))))

    def loss(parameters, batch):
        outputs = nnx.merge(graphdef, parameters)(batch)
        return cross_entropy(outputs, batch.targets, batch.sample_mask)

    def struct(shape, dtype):
        return jax.ShapeDtypeStruct(shape, np.dtype(dtype))

    batch = PaddedBatch(
        {m: struct((B, length, WIDTHS[m]), "float32") for m, length in zip(names, lengths, strict=True)},
        {m: struct((B,), "int32") for m in names},
        struct((B,), "int32"),
        struct((B,), "bool"),
    )
    with on_cpu():
        return jax.jit(jax.grad(loss) if gradient else loss).lower(parameters, batch)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("names", "lengths"),
    [(("text",), (60,)), (("text", "audio"), (25, 177)), (("text", "audio", "visual"), (8, 64, 46))],
)
def test_flops_are_those_that_xla_counts(names, lengths):
    """XLA counts elementwise work too, a few per cent; it counts loops once, so the scores are unrolled here."""
    config = configure("xla", names)
    counted = lower(config, lengths).cost_analysis()["flops"]
    assert B * config.cost(np.array([lengths]))[0] == pytest.approx(counted, rel=0.1)
    forward = lower(config, lengths, gradient=False).cost_analysis()["flops"]
    assert B * config.cost(np.array([lengths]))[0] / 3 == pytest.approx(forward, rel=0.12)


@pytest.mark.slow
def test_flops_grow_with_length_as_xla_says():
    """Three batch shapes, each twice the one before: linear and quadratic terms are both right."""
    lengths = np.array([[10, 40], [20, 80], [40, 160]])
    config = configure("xla", ("text", "audio"))
    counted = [lower(config, row).cost_analysis()["flops"] for row in lengths.tolist()]
    cost = config.cost(lengths)
    np.testing.assert_allclose(cost / cost[0], np.array(counted) / counted[0], rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("attention", "names", "lengths"),
    [("tiled", ("text", "audio"), (60, 200)), ("xla", ("text", "audio"), (60, 200))],
)
def test_activation_bytes_are_those_that_xla_allots(attention, names, lengths):
    config = configure(attention, names)
    compiled = lower(config, lengths).compile()
    held = compiled.memory_analysis().temp_size_in_bytes
    assert device_bytes(compiled) > held
    assert B * config.cost.activation_bytes(np.array([lengths]))[0] == pytest.approx(held, rel=0.1)


def test_the_terms_add_up():
    cost = TransformerCost(("a", "b"), d_model=8, crossmodal_layers=2, memory_layers=3, feature_widths={"a": 5})
    lengths = np.array([[3, 4]])
    a, b, d = 3, 4, 8
    crossmodal = 2 * (24 * d**2 * (a + b) + 2 * 4 * d * a * b)
    memory = 3 * (24 * d**2 * (a + b) + 4 * d * (a**2 + b**2))
    assert cost(lengths)[0] == 3 * (2 * 5 * d * a + crossmodal + memory)


def test_the_weights_price_the_terms():
    lengths = np.array([[3, 4], [30, 40]])
    plain = TransformerCost(("a", "b"))
    linear, quadratic = plain.step_flops(lengths).T
    np.testing.assert_allclose(plain(lengths), linear + quadratic)
    np.testing.assert_allclose([linear[1] / linear[0], quadratic[1] / quadratic[0]], [10, 100])
    weighted = TransformerCost(("a", "b"), linear_weight=0.5, quadratic_weight=2, memory_weight=3)
    np.testing.assert_allclose(
        weighted(lengths), 0.5 * linear + 2 * quadratic + 3 * plain.activation_bytes(lengths), rtol=1e-12
    )
    with pytest.raises(PaddingError, match="got quadratic_weight=-1"):
        TransformerCost(("a",), quadratic_weight=-1)


def test_padding_never_pays():
    cost = TransformerCost(("a", "b", "c"))
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, 50, (200, 3))
    longer = lengths + rng.integers(0, 5, lengths.shape)
    for function in (cost, cost.activation_bytes, position_count):
        assert (function(longer) >= function(lengths)).all()


@pytest.mark.parametrize("name", ["d_model", "crossmodal_layers", "memory_layers", "num_heads", "itemsize"])
def test_bad_sizes(name):
    with pytest.raises(PaddingError, match=f"got {name}=0"):
        TransformerCost(("a",), **{name: 0})
