"""The recipe for tf.data, as the documentation has it."""

import re
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes
from tests.strategies import make_samples

tf = pytest.importorskip("tensorflow")

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def test_the_recipe_gives_the_batches_of_the_batcher():
    (recipe,) = re.findall(r"## tf\.data\n\n```python\n(.*?)```", TEXT, re.DOTALL)
    table = LengthTable(("text", "audio"), np.random.default_rng(0).integers(0, 20, (50, 2)))
    plan = plan_shapes(table, max_shapes=4, batch_size=8)
    names = {"tf": tf, "BucketBatcher": BucketBatcher, "Planned": Planned, "source": make_samples(table), "plan": plan}
    exec(recipe, names)
    dataset = names["dataset"]
    assert dataset.element_spec == names["spec"]
    batches = list(names["batcher"].epoch(0))
    for given, batch in zip(dataset.as_numpy_iterator(), batches, strict=True):
        for one, other in zip(tf.nest.flatten(given), tf.nest.flatten(batch), strict=True):
            np.testing.assert_array_equal(one, other)
    assert type(given) is type(batch)
