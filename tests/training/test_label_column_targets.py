"""Targets of several columns of labels, from the file through batches to loss and metrics."""

import jax.numpy as jnp
import numpy as np
import pytest

from multimodal_pad import BucketBatcher, Ladder, Packed, plan_packing
from multimodal_pad.sources import Csd, Mult
from multimodal_pad.training import binary_cross_entropy, l1, regression_metrics
from tests.helpers.corpora import write_mult, write_sequence


@pytest.fixture(scope="module")
def seven(tmp_path_factory):
    """A source of five segments with seven labels, as of CMU-MOSEI."""
    pytest.importorskip("h5py")
    folder = tmp_path_factory.mktemp("csd")
    times = np.stack([np.arange(5.0), np.arange(5.0) + 1], axis=1)
    labels = np.arange(35).reshape(5, 7) % 4 / 3
    write_sequence(folder / "labels.csd", "labels", {"v": (labels, times)})
    write_sequence(folder / "words.csd", "words", {"v": (np.ones((5, 3)), times)})
    return Csd(folder, sequences={"text": "words.csd"}, labels="labels.csd", label_column=slice(1, 7)), labels[:, 1:]


@pytest.mark.parametrize("packed", [False, True])
def test_as_many_outputs_as_columns(seven, packed):
    source, labels = seven
    assert source.targets.shape == (5, 6)
    policy = Packed(plan_packing(source, batch_size=4)) if packed else Ladder({"text": [1]})
    total, kept = np.zeros(3), []
    for batch in BucketBatcher(source, policy, batch_size=None if packed else 4):
        assert batch.targets.shape == (4, 6)
        outputs = jnp.asarray(np.arange(24.0, dtype=np.float32).reshape(4, 6) / 24)
        real = np.asarray(batch.sample_mask)
        wanted, given = np.asarray(batch.targets)[real], np.asarray(outputs)[real]
        logistic = np.logaddexp(0, given) - given * wanted
        for loss, values in ((l1, np.abs(given - wanted)), (binary_cross_entropy, logistic)):
            np.testing.assert_allclose(loss(outputs, batch.targets, batch.sample_mask), values.mean(), rtol=1e-6)
        assert regression_metrics(given, wanted)["mae"] == pytest.approx(np.abs(given - wanted).mean())
        total += [real.sum(), wanted.sum(), 1]
        kept.append(wanted)
    np.testing.assert_allclose(np.sort(np.concatenate(kept), axis=0), np.sort(labels, axis=0).astype(np.float32))
    assert total.tolist() == [5, pytest.approx(labels.sum()), 2]


def test_a_split_without_labels_makes_batches_without_targets(tmp_path):
    written = write_mult(tmp_path)
    source = Mult(written.path, "test", label_column=None)
    batch = next(iter(BucketBatcher(source, Ladder({"text": [50], "audio": [375], "visual": [500]}), batch_size=4)))
    assert batch.targets is None
