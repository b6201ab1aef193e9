"""Probabilities as bytes: what a threshold gives of them is what it gives of the probabilities themselves."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stages.evaluation.operating_points import THRESHOLDS
from stages.evaluation.probabilities import LONGEST_PX, STEPS, decode_shares, encode_shares, pooled, shares_of


def test_every_threshold_is_a_step():
    for threshold in THRESHOLDS:
        step = round(threshold * STEPS)
        assert shares_of(np.array([threshold + 1e-4, threshold - 1e-4], np.float32)).tolist() == [step, step - 1]
    assert shares_of(np.array([0.0, 1.0])).tolist() == [0, STEPS]


def test_they_are_read_as_they_were_written_and_large_ones_keep_their_peaks():
    shares = np.random.default_rng(0).integers(0, STEPS, (2, 30, 41), np.uint8)
    np.testing.assert_array_equal(decode_shares(encode_shares(shares), 2), shares)
    large = np.zeros((2, 7, 2 * LONGEST_PX + 2), np.uint8)
    large[1, 5, 1001] = 150
    small = decode_shares(encode_shares(large), 2)
    assert small.shape == (2, 3, LONGEST_PX)
    assert np.argwhere(small).tolist() == [[1, 2, 500]]
    assert small.max() == 150
    tall = large.swapaxes(1, 2)
    np.testing.assert_array_equal(decode_shares(encode_shares(tall), 2), small.swapaxes(1, 2))
    assert decode_shares(encode_shares(large[:, 5:6]), 2)[1, 0, 500] == 150, "a row is not lost"


@given(arrays(np.uint8, (1, 9, 13)), st.integers(1, 9), st.integers(1, 13))
def test_a_pooled_map_reaches_a_threshold_where_some_pixel_does(shares, height, width):
    found = pooled(shares, (0, 0, 9, 13), (height, width))
    for row in range(height):
        for column in range(width):
            part = np.s_[row * 9 // height : (row + 1) * 9 // height, column * 13 // width : (column + 1) * 13 // width]
            assert found[0, row, column] == shares[0][part].max()


def test_a_part_between_pixels_is_cut_out_and_never_empty():
    shares = np.arange(24, dtype=np.uint8).reshape(1, 4, 6)
    assert pooled(shares, (1, 2, 3, 5), (2, 3))[0].tolist() == [[8, 9, 10], [14, 15, 16]]
    assert pooled(shares, (1.4, 2.2, 2.2, 2.9), (1, 1))[0].tolist() == [[14]]
    assert pooled(shares, (1, 2, 2, 3), (2, 2))[0].tolist() == [[8, 8], [8, 8]]
