"""Flips and shifts against one image at a time."""

import numpy as np
import pytest

from nnlib.data import Augment


def every_view(image, crop):
    padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)), mode="edge")
    height, width, _ = image.shape
    for top in range(2 * crop + 1):
        for left in range(2 * crop + 1):
            view = padded[top : top + height, left : left + width]
            yield from (view, view[:, ::-1])


def test_each_image_is_one_of_its_own_shifted_or_mirrored_views():
    images = np.random.default_rng(0).integers(0, 256, size=(30, 6, 5, 3), dtype=np.uint8)
    before = images.copy()
    changed = Augment(crop=2)(images, np.random.default_rng(1))
    assert changed.dtype == np.uint8
    for image, result in zip(images, changed, strict=True):
        assert any((result == view).all() for view in every_view(image, 2))
    np.testing.assert_array_equal(images, before)


def test_half_are_mirrored_and_nothing_else_without_crop():
    images = np.arange(3, dtype=np.uint8)[None, None, :, None].repeat(2000, axis=0)
    changed = Augment(crop=0)(images, np.random.default_rng(0))
    assert (changed[:, 0, 0, 0] == 2).mean() == pytest.approx(0.5, abs=0.05)
    np.testing.assert_array_equal(Augment(flip=False, crop=0)(images, np.random.default_rng(0)), images)


def test_the_generator_decides():
    images = np.random.default_rng(0).integers(0, 256, size=(9, 8, 8, 1), dtype=np.uint8)
    one, same, other = (Augment()(images, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert (one == same).all()
    assert (one != other).any()


def test_bad_input():
    with pytest.raises(ValueError, match="at least 0"):
        Augment(crop=-1)
    with pytest.raises(ValueError, match=r"expected \(N, H, W, C\)"):
        Augment()(np.zeros((3, 20)), np.random.default_rng(0))
