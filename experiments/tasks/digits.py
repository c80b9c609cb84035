"""Digits: classify an image of 8 × 8 pixels that is shown one pixel a step.

    input     the pixel, an integer from 0 (white) to 16; row by row, or in a fixed random order
    target    at the last of the 64 steps, the digit

The loss counts at the last step only. Images are drawn with replacement from a split: 1,797 images
in all, of which 1,500 are for training and 297 for tests. The split and the random order are the
same everywhere.

    task = digits(permuted=True)           # endless, for training
    xs, targets = images("test", permuted=True)  # each test image once: [64, 297], [297]

Baselines, in nats per counted step:
  optimum      0: a bound.
  constant     the entropy of the digits of the split, about ln 10: always predicts their shares.

Source: the images are those of `sklearn.datasets.load_digits` (Alpaydin & Kaynak, 1998), which come
with scikit-learn. The task is that of Le, Jaitly and Hinton (arXiv 1504.00941), section 4.2, who
use images of 28 × 28 pixels.
"""

import functools
from typing import Any, Literal, get_args

import numpy as np

from experiments.tasks.base import At, Task, sequences

Split = Literal["train", "test"]
NUM_PIXELS = 64
NUM_LEVELS = 17
NUM_TEST = 297


def digits(permuted: bool = False, split: Split = "train") -> Task:
    """Makes the classification of digits, of the images for training or of those for tests.

    Args:
      permuted: whether the pixels are shown in a fixed random order, otherwise row by row.
      split: "train" or "test".
    """
    pixels, labels = images(split, permuted)

    def draw(rng: np.random.Generator) -> tuple[int, At]:
        image = int(rng.integers(len(labels)))

        def at(steps: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            targets = np.full(len(steps), labels[image], np.int32)
            return pixels[steps, image], targets, steps == NUM_PIXELS - 1

        return NUM_PIXELS, at

    shares = np.bincount(labels) / len(labels)
    return Task(
        name="digits" + ", permuted" * permuted + ", test images" * (split == "test"),
        input_size=NUM_LEVELS,
        output_size=10,
        baselines={"optimum": 0.0, "constant": float(-shares @ np.log(shares))},
        sequence_length=NUM_PIXELS,
        pieces=sequences(draw),
    )


def images(split: Split, permuted: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns (pixels int32 [64, N] in the order of the steps, digits int32 [N]) of a split."""
    if split not in get_args(Split):
        raise ValueError(f"split = {split!r}; expected 'train' or 'test'.")
    pixels, labels, order = _load()
    cut = slice(NUM_TEST) if split == "test" else slice(NUM_TEST, None)
    return (pixels[order] if permuted else pixels)[:, cut], labels[cut]


@functools.cache
def _load() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All images in a random order, so that both splits have every writer; the order of pixels."""
    from sklearn.datasets import load_digits  # here, as the import takes a second

    data: Any = load_digits()
    rng = np.random.default_rng(0)
    image, order = rng.permutation(len(data.target)), rng.permutation(NUM_PIXELS)
    return data.data[image].T.astype(np.int32), data.target[image].astype(np.int32), order
