"""Windows gathered from a signal are what slicing gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embridge_edge.features.rows import Rows


@given(st.data(), st.integers(1, 40), st.integers(1, 5), st.integers(0, 12))
def test_windows_of_places_are_slices_of_the_signal(
    data: st.DataObject, length: int, channels: int, count: int
) -> None:
    samples = length + data.draw(st.integers(0, 60))
    signal = np.random.default_rng(samples).standard_normal((samples, channels)).astype(np.float32)
    places = data.draw(st.lists(st.integers(0, samples - length), min_size=count, max_size=count))
    rows = Rows.of_places(signal, np.array(places, np.int64), length)
    assert (rows.windows, rows.length, rows.channels) == (count, length, channels)
    for window, start in enumerate(places):
        for channel in range(channels):
            first = rows.offsets[window * channels + channel]
            np.testing.assert_array_equal(rows.base[first : first + length], signal[start : start + length, channel])


@pytest.mark.parametrize("start", [-1, 91])
def test_a_place_outside_of_the_signal_is_refused(start: int) -> None:
    with pytest.raises(IndexError, match="outside"):
        Rows.of_places(np.zeros((100, 2), np.float32), np.array([3, start], np.int64), 10)
