"""Batches and samples compared, array by array."""

import numpy as np


def assert_same_samples(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert set(one) == set(other)
        for key, value in other.items():
            assert np.asarray(one[key]).dtype == np.asarray(value).dtype
            np.testing.assert_array_equal(one[key], value)


def flat(batch):
    return [*batch.features.values(), *batch.lengths.values(), batch.targets, batch.sample_mask]


def assert_same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.shape == other.shape
        for a, b in zip(flat(one), flat(other), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
