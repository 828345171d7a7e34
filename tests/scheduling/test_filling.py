import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from multimodal_pad.scheduling.filling import fill_up, share_out


def draw_numbers(data, low, high, count):
    return np.array(data.draw(st.lists(st.integers(low, high), min_size=count, max_size=count)))


@given(st.data(), st.integers(1, 6), st.integers(1, 9))
def test_a_batch_is_filled_row_by_row_with_the_dearest_that_fits(data, kinds, rows):
    counts, shapes = draw_numbers(data, 0, 5, kinds), np.stack([draw_numbers(data, 1, 4, kinds) for _ in "ab"], axis=1)
    kind = data.draw(st.integers(0, kinds - 1))
    fitting = [k for k in range(kind, -1, -1) if (shapes[k] <= shapes[kind]).all()]
    offered = [k for k in fitting for _ in range(counts[k])]
    wanted = np.bincount(offered[:rows], minlength=kind + 1)
    np.testing.assert_array_equal(fill_up(kind, counts, shapes, rows), wanted)


@given(st.data(), st.integers(1, 6), st.booleans())
def test_sharing_out_keeps_its_promises(data, kinds, last):
    counts, sizes = draw_numbers(data, 0, 12, kinds), draw_numbers(data, 1, 5, kinds)
    shapes = np.stack([draw_numbers(data, 1, 4, kinds) for _ in "ab"], axis=1)
    own, lent = share_out(counts, shapes, sizes, last=last)
    gone, batches = own.copy(), own.copy()
    for kind, source, count in lent:
        assert count > 0
        assert source < kind
        assert (shapes[source] <= shapes[kind]).all()
        gone[source] += count
        batches[kind] += count
    if last:
        np.testing.assert_array_equal(gone, counts)
        for kind in np.flatnonzero(batches % sizes):
            below = (shapes[:kind] <= shapes[kind]).all(axis=1)
            assert (own[:kind][below] == 0).all(), "rows stay empty only where nobody is left to fill them"
    else:
        assert (gone <= counts).all()
        assert (batches % sizes == 0).all()
        if not lent:
            np.testing.assert_array_equal(own, counts - counts % sizes)


@pytest.mark.parametrize(("counts", "lends"), [([8, 4], False), ([1, 2], True), ([7, 5], False)])
def test_nobody_is_lent_while_at_most_half_would_wait(counts, lends):
    _, lent = share_out(np.array(counts), np.array([[4], [8]]), np.array([4, 3]), last=False)
    assert bool(lent) == lends
