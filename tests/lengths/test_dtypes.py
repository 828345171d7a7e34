"""Which dtypes a batch holds: one rule, over all that NumPy has."""

import ml_dtypes
import numpy as np
import pytest

from multimodal_pad.errors import SampleError
from multimodal_pad.lengths.arrays import as_array
from multimodal_pad.lengths.dtypes import as_native, batch_dtype, is_kept
from tests.helpers.dtypes import ALL_DTYPES, HELD, OWN_TYPES


@pytest.mark.parametrize("dtype", ALL_DTYPES, ids=str)
def test_a_dtype_is_kept_or_made_native_or_refused(dtype):
    if dtype.newbyteorder("=") in HELD:
        found = batch_dtype(dtype, "sample 3, 'audio'")
        assert found == dtype.newbyteorder("=")
        assert found.isnative
        assert is_kept(dtype) == dtype.isnative
    else:
        assert not is_kept(dtype)
        with pytest.raises(SampleError, match=r"^sample 3, 'audio': got dtype .*, and a batch holds bool.*; give "):
            batch_dtype(dtype, "sample 3, 'audio'")


def test_every_type_of_numpy_is_told_apart():
    assert {dtype.newbyteorder("=") for dtype in ALL_DTYPES} | {
        np.dtype("S"),
        np.dtype("U"),
        np.dtype("V"),
    } >= OWN_TYPES


def test_values_stay_what_they_are_in_native_byte_order():
    array = np.array([[1, 256], [-3, 70000]], ">i4")
    found = as_native(array, "")
    assert found.dtype == np.int32
    assert found.tolist() == array.tolist()
    same = np.arange(3)
    assert as_native(same, "") is same


def test_bfloat16_is_kept_and_its_smaller_kin_are_not():
    assert is_kept(np.dtype(ml_dtypes.bfloat16))
    for kind in (ml_dtypes.float8_e4m3fn, ml_dtypes.int4):
        with pytest.raises(SampleError, match=r"give numbers of one of these, such as x.astype\(np.float32\)"):
            batch_dtype(np.dtype(kind), "")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1.0, None], r"got NoneType at \[1\]"),
        ([[1, 2], [3, 2**70]], r"got the number 1180591620717411303424 at \[1, 1\], which no dtype holds"),
        (2**70, "got the number 1180591620717411303424, which no dtype holds"),
        ({1, 2}, "got set; give bool"),
        (iter([1]), "got list_iterator; give bool"),
        (np.array([1, 2], object), "got ndarray of dtype object"),
        (["a", 1], "got dtype <U.*; give whole numbers for text"),
        (np.array(["a"], np.dtypes.StringDType()), "got dtype StringDType.*; give whole numbers for text"),
        ([2**53 + 1, 0.5], "whole numbers among others that float64 does not hold exactly"),
        ([2**63 + 5, -1], "whole numbers among others that float64 does not hold exactly"),
        ([np.ma.array([1, 2]), np.ma.array([1, 2], mask=[1, 0])], "1 of 2 values are masked"),
        (np.ma.masked, "1 of 1 values are masked"),
        ([[1], [1, 2]], "not an array of one shape"),
    ],
)
def test_what_is_no_array_of_numbers_is_told(value, message):
    with pytest.raises(SampleError, match=f"^sample 4, 'text': .*{message}"):
        as_array(value, 4, "'text'")


def test_a_mask_that_hides_nothing_is_no_mask():
    for value in (np.ma.array([1, 2]), np.ma.array([1, 2], mask=[0, 0])):
        assert type(as_array(value, 0, "")) is np.ndarray
        assert as_array(value, 0, "").tolist() == [1, 2]
