"""Augmentation against SciPy's resampling, against NumPy's padding and against its own formulas, image by image."""

import numpy as np
import pytest
from scipy import ndimage

from nnlib.data import Augment
from nnlib.data.augment import BLOCK, Changes

STILL = {"flip": False, "crop": 0}
ALL_ON = {"rotation": 10, "scale": 0.1, "shift": 0.1, "brightness": 0.2, "contrast": 0.3, "erasing": 0.5}
KINDS = [{"crop": 3}, *({**STILL, name: value} for name, value in ALL_ON.items()), ALL_ON]


def pictures(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 256, size=shape).astype(dtype)


def run(settings, images, seed=1):
    """Return the changed images and the changes that the same generator draws."""
    augment = Augment(**settings)
    changed = augment(images, np.random.default_rng(seed))
    return changed, augment.draw(*images.shape[:3], np.random.default_rng(seed))


def close(result, reference):
    """Whether values are the reference, which has fractions, but for the dtype's rounding."""
    rounding = {"uint8": 0.501, "float16": 0.07}.get(result.dtype.name, 0.005)
    return (np.abs(result - reference) <= rounding).all()


# Whole pixels: flip and crop


def every_view(image, crop):
    padded = np.pad(image, ((crop, crop), (crop, crop), (0, 0)), mode="edge")
    height, width, _ = image.shape
    for top in range(2 * crop + 1):
        for left in range(2 * crop + 1):
            view = padded[top : top + height, left : left + width]
            yield from (view, view[:, ::-1])


def test_each_image_is_one_of_its_own_shifted_or_mirrored_views():
    images = pictures(30, 6, 5, 3)
    changed, _ = run({"crop": 2}, images)
    for image, result in zip(images, changed, strict=True):
        assert any((result == view).all() for view in every_view(image, 2))


def test_half_are_mirrored_and_nothing_else_without_crop():
    images = np.arange(3, dtype=np.uint8)[None, None, :, None].repeat(2000, axis=0)
    changed, _ = run({"crop": 0}, images)
    assert (changed[:, 0, 0, 0] == 2).mean() == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_flip_and_crop_draw_and_give_what_they_always_did(dtype):
    """Records of earlier runs rest on this stream; the reference is the first version of the function."""
    images, crop = pictures(40, 9, 7, 3, dtype=dtype), 3
    rng, reference_rng = np.random.default_rng(5), np.random.default_rng(5)
    changed = Augment(crop=crop)(images, rng)
    shifts = reference_rng.integers(-crop, crop + 1, size=(2, 40, 1))
    rows, columns = np.arange(9) + shifts[0], np.arange(7) + shifts[1]
    mirrored = reference_rng.random(40) < 0.5
    columns[mirrored] = columns[mirrored, ::-1]
    rows, columns = rows.clip(0, 8), columns.clip(0, 6)
    reference = images[np.arange(40)[:, None, None], rows[:, :, None], columns[:, None, :]]
    np.testing.assert_array_equal(changed, reference)
    assert rng.bit_generator.state == reference_rng.bit_generator.state


# Between pixels: rotation, scale and shift


@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [(12, 17), (1, 9), (9, 1), (1, 1), (2, 2)])
def test_looking_up_agrees_with_scipy(dtype, size):
    images = pictures(20, *size, 2, dtype=dtype)
    changed, changes = run({"rotation": 30, "scale": 0.4, "shift": 0.3}, images)
    for image, result, matrix in zip(images, changed, changes.matrices, strict=True):
        for channel in range(2):
            plane = image[:, :, channel].astype(float)
            reference = ndimage.affine_transform(plane, matrix[:, :2], matrix[:, 2], order=1, mode="nearest")
            assert close(result[:, :, channel], reference)


def test_matrices_turn_magnify_and_shift_as_much_as_asked():
    height, width = 20, 31
    augment = Augment(crop=0, rotation=25, scale=0.2, shift=0.1)
    changes = augment.draw(4000, height, width, np.random.default_rng(0))
    linear = changes.matrices[:, :, :2]
    determinants = np.linalg.det(linear)
    np.testing.assert_array_equal(determinants < 0, changes.mirrored)
    linear = linear * np.where(changes.mirrored, [[1], [-1]], [[1], [1]]).T[:, None, :]
    np.testing.assert_allclose(
        linear @ linear.transpose(0, 2, 1), np.abs(determinants)[:, None, None] * np.eye(2), atol=1e-12
    )
    angles = np.rad2deg(np.arctan2(linear[:, 1, 0], linear[:, 0, 0]))
    factors = np.abs(determinants) ** -0.5
    centre = np.array([(height - 1) / 2, (width - 1) / 2, 1])
    shifts = (changes.matrices @ centre - centre[:2]) / (height, width)
    for values, low, high in (
        (angles, -25, 25),
        (factors, 0.8, 1.2),
        (shifts[:, 0], -0.1, 0.1),
        (shifts[:, 1], -0.1, 0.1),
    ):
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high


def test_a_quarter_turn_and_a_magnification_about_the_centre():
    image = pictures(1, 5, 5, 1)
    offsets, mirrored = np.zeros((1, 2), dtype=int), np.zeros(1, dtype=bool)
    quarter = Changes(offsets, mirrored, matrices=np.array([[[0, -1, 4], [1, 0, 0]]]))
    np.testing.assert_array_equal(quarter.apply(image)[0], np.rot90(image[0], -1))
    doubled = Changes(offsets, mirrored, matrices=np.array([[[0.5, 0, 1], [0, 0.5, 1]]])).apply(image)
    np.testing.assert_array_equal(doubled[0, ::2, ::2], image[0, 1:4, 1:4])


def test_one_resampling_moves_flip_and_crop_as_whole_pixels_do():
    images = pictures(50, 10, 13, 3)
    np.testing.assert_array_equal(run({"rotation": 1e-7}, images)[0], run({}, images)[0])


# Light


@pytest.mark.parametrize("moved", [{}, {"rotation": 1e-7}])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
def test_brightness_and_contrast_follow_the_formula(moved, dtype):
    images = pictures(30, 8, 8, 3, dtype=dtype)
    changed, changes = run({**STILL, **moved, "brightness": 0.5, "contrast": 0.4}, images)
    assert np.abs(changes.light - 1).max(axis=0) == pytest.approx([0.5, 0.4], rel=0.2)
    assert (np.abs(changes.light - 1) <= [0.5, 0.4]).all()
    for image, result, (brightness, contrast) in zip(images, changed, changes.light, strict=True):
        mean = image.mean(dtype=float)
        reference = brightness * (mean + contrast * (image - mean))
        assert close(result, reference.clip(0, 255) if dtype == np.uint8 else reference)
    assert (changed.max() > 255) == (dtype != np.uint8)


def test_one_of_the_two_leaves_the_other_at_one():
    _, brighter = run({"brightness": 0.5}, pictures(9, 2, 2, 1))
    _, harder = run({"contrast": 0.5}, pictures(9, 2, 2, 1))
    assert (brighter.light[:, 1] == 1).all()
    assert (harder.light[:, 0] == 1).all()
    np.testing.assert_array_equal(brighter.light[:, 0], harder.light[:, 1])  # and draws nothing


# Erasing


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_boxes_are_filled_with_the_mean_and_the_rest_is_left(dtype):
    images = pictures(30, 20, 16, 3, dtype=dtype)
    changed, changes = run({**STILL, "erasing": 0.5, "brightness": 0.3}, images)
    plain, _ = run({**STILL, "brightness": 0.3}, images)
    for image, result, rest, light, box in zip(images, changed, plain, changes.light, changes.boxes, strict=True):
        inside = np.zeros((20, 16), dtype=bool)
        inside[box[0] : box[1], box[2] : box[3]] = True
        np.testing.assert_array_equal(result[~inside], rest[~inside])
        assert close(result[inside], light[0] * image.mean(dtype=float))


def test_boxes_keep_to_the_area_and_the_aspect():
    height, width, area, aspect = 300, 400, (0.05, 0.3), (0.5, 3.0)
    augment = Augment(erasing=0.25, erasing_area=area, erasing_aspect=aspect)
    boxes = augment.draw(8000, height, width, np.random.default_rng(0)).boxes
    high, wide = boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]
    chosen = high > 0
    np.testing.assert_array_equal(chosen, wide > 0)
    assert chosen.mean() == pytest.approx(0.25, abs=0.02)
    assert (boxes >= 0).all()
    assert (boxes[:, 1] <= height).all()
    assert (boxes[:, 3] <= width).all()
    shares, ratios = (high * wide / (height * width))[chosen], (high[chosen] / wide[chosen])
    for values, (low, high) in ((shares, area), (ratios, aspect)):
        assert values.min() == pytest.approx(low, rel=0.05)
        assert values.max() == pytest.approx(high, rel=0.05)
    assert np.median(shares) == pytest.approx(np.mean(area), rel=0.05)
    assert np.median(ratios) == pytest.approx(np.sqrt(np.prod(aspect)), rel=0.05)


def test_boxes_stand_everywhere_alike():
    augment = Augment(erasing=1, erasing_area=(0.25, 0.25), erasing_aspect=(1, 1))
    boxes = augment.draw(5000, 8, 12, np.random.default_rng(0)).boxes
    np.testing.assert_array_equal(boxes[:, 1::2] - boxes[:, ::2], 5)  # the root of a quarter of 96, rounded
    for first, places in ((boxes[:, 0], 4), (boxes[:, 2], 8)):
        np.testing.assert_allclose(np.bincount(first, minlength=places) * places / 5000, np.ones(places), atol=0.15)


def test_a_box_that_would_not_fit_becomes_less_long_but_no_smaller():
    augment = Augment(erasing=1, erasing_area=(0.5, 0.5), erasing_aspect=(50, 50))
    boxes = augment.draw(9, 40, 60, np.random.default_rng(0)).boxes
    np.testing.assert_array_equal(boxes[:, :2], np.tile([0, 40], (9, 1)))
    np.testing.assert_array_equal(boxes[:, 3] - boxes[:, 2], 30)


# All of them


@pytest.mark.parametrize("settings", KINDS, ids=str)
@pytest.mark.parametrize("dtype", [np.uint8, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(7, 6, 5, 3), (3, 1, 1, 1), (2, 1, 8, 1), (0, 4, 4, 1)])
def test_shape_dtype_operand_and_seed(settings, dtype, shape):
    images = pictures(*shape, dtype=dtype)
    images.flags.writeable = False
    changed, _ = run(settings, images)
    assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
    assert not np.shares_memory(changed, images)
    np.testing.assert_array_equal(changed, run(settings, images)[0])


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_another_seed_gives_another_result(settings):
    images = pictures(9, 8, 8, 1)
    assert (run(settings, images, seed=1)[0] != run(settings, images, seed=2)[0]).any()


@pytest.mark.parametrize("settings", KINDS, ids=str)
def test_the_stream_does_not_depend_on_what_the_images_hold(settings):
    states = []
    for images in (pictures(9, 8, 8, 1), np.zeros((9, 8, 8, 3), dtype=np.float32)):
        rng = np.random.default_rng(1)
        Augment(**settings)(images, rng)
        states.append(rng.bit_generator.state)
    assert states[0] == states[1]


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_all_off_is_the_identity_and_draws_nothing(dtype):
    images, rng = pictures(4, 5, 6, 2, dtype=dtype), np.random.default_rng(1)
    changed = Augment(**STILL)(images, rng)
    np.testing.assert_array_equal(changed, images)
    assert not np.shares_memory(changed, images)
    assert rng.bit_generator.state == np.random.default_rng(1).bit_generator.state


def test_blocks_and_memory_order_change_nothing():
    images = pictures(200, 16, 16, 1)
    assert images.size > BLOCK
    changed, changes = run(ALL_ON, images)
    np.testing.assert_array_equal(changed, changes.apply(images))
    transposed = np.asfortranarray(images)
    np.testing.assert_array_equal(changed, run(ALL_ON, transposed)[0])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"crop": -1}, "crop is a whole number of pixels, at least 0, got -1"),
        ({"crop": 1.5}, "at least 0, got 1.5"),
        ({"rotation": -1}, "rotation lies in 0 to 180, got -1"),
        ({"rotation": 181}, "rotation lies in 0 to 180, got 181"),
        ({"scale": 1}, "scale lies in 0 to 0.9, got 1"),
        ({"shift": float("nan")}, "shift lies in 0 to 1, got nan"),
        ({"brightness": 1.1}, "brightness lies in 0 to 1, got 1.1"),
        ({"contrast": -0.1}, "contrast lies in 0 to 1, got -0.1"),
        ({"erasing": 2}, "erasing lies in 0 to 1, got 2"),
        ({"erasing_area": (0.4, 0.1)}, r"erasing_area is \(least, greatest\), above 0 and up to 1, got \(0.4, 0.1\)"),
        ({"erasing_area": (0, 0.1)}, "above 0"),
        ({"erasing_area": (0.5, 1.1)}, "up to 1,"),
        ({"erasing_area": (0.5,)}, r"\(least, greatest\)"),
        ({"erasing_aspect": (1, float("inf"))}, "erasing_aspect is .* up to 100"),
    ],
    ids=str,
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        Augment(**settings)


def test_bad_images():
    for shape in ((3, 20), (3, 0, 5, 1)):
        with pytest.raises(ValueError, match=r"expected \(N, H, W, C\)"):
            Augment()(np.zeros(shape), np.random.default_rng(0))
    with pytest.raises(ValueError, match="int64, expected uint8 or floats"):
        Augment()(np.zeros((1, 2, 2, 1), dtype=np.int64), np.random.default_rng(0))
