import numpy as np

from components.judging import length_bands


def test_length_bands_include_their_upper_ends():
    assert length_bands(np.array([1, 16, 17, 32, 33, 500]), [16, 32]) == [
        "1-16", "1-16", "17-32", "17-32", ">32", ">32"]
    assert length_bands(np.array([3, 2]), [2]) == [">2", "1-2"]
