"""Digits: the images of scikit-learn, each in one split, shown in one order."""

import numpy as np
import pytest
import task_streams
from sklearn.datasets import load_digits

from experiments.tasks import digits
from experiments.tasks.digits import NUM_TEST, images


def test_the_splits_are_all_images_with_their_digits():
    (train, train_digits), (test, test_digits) = images("train"), images("test")
    assert len(test_digits) == NUM_TEST
    found = np.column_stack([np.hstack([train, test]).T, [*train_digits, *test_digits]])
    data = load_digits()
    expected = np.column_stack([data.images.reshape(-1, 64), data.target])
    order, expected_order = (np.lexsort(rows.T) for rows in (found, expected))
    np.testing.assert_array_equal(found[order], expected[expected_order])


def test_the_permuted_pixels_are_the_same_pixels_in_one_order():
    rows, permuted = images("test")[0], images("test", permuted=True)[0]
    order = [np.flatnonzero((rows == pixel).all(axis=1)) for pixel in permuted]
    blank = (rows == 0).all(axis=1)
    seen = [int(place[0]) for place in order if len(place) == 1]
    assert len(seen) == len(set(seen)) == 64 - blank.sum() and seen != sorted(seen)


@pytest.mark.parametrize("permuted", [False, True])
@pytest.mark.parametrize("split", ["test", "train"])
def test_each_sequence_is_an_image_of_the_split_and_its_digit(split, permuted):
    pixels, labels = images(split, permuted)
    known = {tuple(column): label for column, label in zip(pixels.T, labels, strict=True)}
    for sequence in task_streams.sequences(digits(permuted, split), per_row=10, batch=3):
        assert known[tuple(sequence.xs)] == sequence.targets[63]
        assert np.flatnonzero(sequence.mask).tolist() == [63]
