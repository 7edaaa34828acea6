"""Colour jitter and RandAugment: the released operations and the mended ones."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from groundwork.dataset.colours import released_jitter, torchvision_jitter
from groundwork.dataset.image_text.transforms import CropTransform, random_part
from groundwork.dataset.randaugment import MENDED_OPERATIONS, OPERATIONS, rand_augment


class Factors:
    """A generator that gives brightness, contrast, saturation and hue."""

    def __init__(self, *values: float) -> None:
        self.values = iter(values)

    def uniform(self, _low: float, _high: float) -> float:
        return next(self.values)

    def permutation(self, count: int) -> range:
        return range(count)


def picture(seed: int = 0, low: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, 256, (40, 60, 3), dtype=np.uint8)


def saturation(image: np.ndarray) -> float:
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV)[..., 1].mean() / 255


def test_the_released_jitter_adds_its_saturation_and_gives_grey_images_a_colour():
    grey = np.repeat(picture()[..., :1], 3, axis=2)
    assert saturation(released_jitter(grey, Factors(1, 1, 1, 0))) > 0.95
    assert saturation(torchvision_jitter(grey, Factors(1, 1, 1, 0))) < 0.05


def test_the_released_brightness_is_a_share_of_the_mean_and_precedes_the_colours():
    image = np.full((4, 4, 3), 100, dtype=np.uint8)
    image[0] = 50
    level = cv2.cvtColor(released_jitter(image, Factors(1.3, 0.8, 0.6, 0)), cv2.COLOR_RGB2HSV)
    added = 0.3 * image.mean()
    assert level[0, 0, 2] == int(0.8 * 50 + added)
    assert level[1, 0, 2] == int(0.8 * 100 + added)


def test_a_turn_of_the_hue_is_counted_in_255ths_of_opencvs_180():
    red = np.zeros((2, 2, 3), dtype=np.uint8)
    red[..., 0] = 200
    turned = released_jitter(red, Factors(1, 1, 1, -0.1))
    assert cv2.cvtColor(turned, cv2.COLOR_RGB2HSV)[0, 0, 0] == 180 - 25


def test_contrast_and_equalisation_are_pillows_as_far_as_they_are_meant():
    image = picture(low=40)
    pillow = Image.fromarray(image)
    stretched = MENDED_OPERATIONS["AutoContrast"](image, None)
    np.testing.assert_allclose(stretched, np.asarray(ImageOps.autocontrast(pillow)), atol=1)
    equal = np.asarray(ImageOps.equalize(pillow))
    np.testing.assert_array_equal(OPERATIONS["Equalize"](image, None), equal)


def test_the_released_contrast_turns_a_channel_without_black_white():
    image = picture(low=40)
    assert (OPERATIONS["AutoContrast"](image, None) == 255).all()
    image[0, 0] = 0
    mended = MENDED_OPERATIONS["AutoContrast"](image, None)
    np.testing.assert_array_equal(OPERATIONS["AutoContrast"](image, None), mended)


def test_the_released_sharpness_wraps_where_the_mended_one_clips():
    image = np.zeros((5, 5, 3), dtype=np.uint8)
    image[2, 2] = 255
    assert MENDED_OPERATIONS["Sharpness"](image, 1.36)[2, 2].tolist() == [255] * 3
    assert OPERATIONS["Sharpness"](image, 1.36)[2, 2].max() < 128
    for operations in (OPERATIONS, MENDED_OPERATIONS):
        noise = picture()
        sharper = operations["Sharpness"](noise, 1.36)
        np.testing.assert_array_equal(sharper[0], noise[0])
        assert (sharper[1:-1] != noise[1:-1]).any()


def test_images_move_by_pixels_and_grey_comes_in():
    image = picture()
    moved = OPERATIONS["TranslateX"](image, 7.0)
    np.testing.assert_array_equal(moved[:, :-7], image[:, 7:])
    assert (moved[:, -6:] == 128).all()
    np.testing.assert_array_equal(OPERATIONS["TranslateY"](image, -7.0)[7:], image[:-7])


def test_half_of_the_drawn_operations_are_done():
    done = []
    counting = {
        name: lambda image, value, n=name: done.append((n, value)) or image for name in OPERATIONS
    }
    rng = np.random.default_rng(0)
    for _ in range(2000):
        rand_augment(picture(), rng, counting)
    assert 1850 < len(done) < 2150
    shares = {name: sum(n == name for n, _ in done) / len(done) for name in OPERATIONS}
    assert all(0.07 < share < 0.13 for share in shares.values())
    strengths = {v for n, v in done if n == "Rotate"}, {v for n, v in done if n == "Brightness"}
    assert strengths == ({21.0, -21.0}, {0.7 * 1.8 + 0.1})


def test_a_random_part_lies_in_the_image_and_has_the_released_areas_and_aspects():
    rng, (height, width) = np.random.default_rng(0), (90, 120)
    for _ in range(300):
        top, left, h, w = random_part((height, width), rng)
        assert 0 <= top <= height - h and 0 <= left <= width - w
        assert 0.19 < h * w / (height * width) <= 1
        assert 0.73 < w / h < 1.37


def test_the_part_of_a_very_narrow_image_is_its_middle():
    assert random_part((10, 1000), np.random.default_rng(0)) == (0, 493, 10, 13)


def test_a_cropped_image_has_no_region():
    transform = CropTransform(32, 16)
    image, region, _ = transform(picture(), None, np.random.default_rng(0))
    assert image.shape == (3, 32, 32) and region is None
    with pytest.raises(ValueError, match="no regions"):
        transform(picture(), [(1, 2, 3, 4)], np.random.default_rng(0))
    with pytest.raises(ValueError, match="released, mended"):
        CropTransform(operations="own")
