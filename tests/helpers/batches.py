"""Batches and samples compared, array by array."""

import numpy as np

from multimodal_pad.lengths.trees import named_leaves


def assert_same_samples(got, wanted):
    assert len(got) == len(wanted)
    for one, other in zip(got, wanted, strict=True):
        assert set(one) == set(other)
        for key, value in other.items():
            got_leaves, wanted_leaves = named_leaves(one[key], key), named_leaves(value, key)
            assert set(got_leaves) == set(wanted_leaves)
            for where, leaf in wanted_leaves.items():
                assert np.asarray(got_leaves[where]).dtype == np.asarray(leaf).dtype
                np.testing.assert_array_equal(got_leaves[where], leaf, err_msg=where)


def flat(batch):
    named = named_leaves({"targets": batch.targets, "positions": batch.position_targets}, "")
    targets = [named[where] for where in sorted(named)]  # worker processes give dicts in the order of the alphabet
    return [*batch.features.values(), *batch.lengths.values(), *targets, batch.sample_mask]


def assert_same(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others, strict=True):
        assert one.shape == other.shape
        for a, b in zip(flat(one), flat(other), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
