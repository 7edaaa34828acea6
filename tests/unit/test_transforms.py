"""Resizing rules, region masks, augmentation."""

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from groundwork.dataset.image_text.transforms import (
    CLIP_MEAN,
    CLIP_STD,
    EvalTransform,
    TrainTransform,
    normalise,
    resize,
)


def denormalise(image: torch.Tensor) -> np.ndarray:
    """The inverse of `normalise`: (3, H, W) float -> (H, W, 3) uint8."""
    deviation, mean = torch.tensor(CLIP_STD)[:, None, None], torch.tensor(CLIP_MEAN)[:, None, None]
    levels = (image * deviation + mean).mul(255).round().clamp(0, 255)
    return levels.to(torch.uint8).permute(1, 2, 0).numpy()


class Draws:
    """A generator whose uniform draws are given, so that one augmentation can be switched on."""

    def __init__(self, *values: float) -> None:
        self.values = list(values)

    def random(self) -> float:
        return self.values.pop(0)

    def permutation(self, count: int) -> list[int]:
        return list(range(count))

    def uniform(self, low: float, high: float) -> float:
        return (low + high) / 2


NO = 0.999


def picture(height: int = 40, width: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_opencv_bilinear_is_cv2_resize_and_pil_bicubic_is_pillow():
    image = picture()
    opencv = cv2.resize(image, (24, 24), interpolation=cv2.INTER_LINEAR)
    pillow = Image.fromarray(image).resize((24, 24), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(resize(image, 24, "opencv_bilinear"), opencv)
    np.testing.assert_array_equal(resize(image, 24, "pil_bicubic"), np.asarray(pillow))


def test_an_unknown_resize_rule_lists_the_legal_ones():
    with pytest.raises(ValueError, match="opencv_bilinear, pil_bicubic"):
        EvalTransform(32, "nearest")


def test_normalisation_is_clips_and_can_be_undone():
    image = picture()
    tensor = normalise(image)
    expected = (image[5, 7] / 255 - np.array(CLIP_MEAN)) / np.array(CLIP_STD)
    np.testing.assert_allclose(tensor[:, 5, 7].numpy(), expected, rtol=1e-5)
    np.testing.assert_array_equal(denormalise(tensor), image)


def test_the_evaluation_transform_resizes_without_keeping_the_aspect():
    image = picture(30, 90)
    expected = normalise(resize(image, 32, "pil_bicubic"))
    assert torch.equal(EvalTransform(32, "pil_bicubic")(image), expected)


def test_a_flip_mirrors_image_and_region_together():
    image, box = picture(), (5.0, 4.0, 20.0, 30.0)
    transform = TrainTransform(32, 16)
    plain, region, flipped = transform(image, [box], Draws(NO, NO, NO))
    mirrored, mirrored_region, was_flipped = transform(image, [box], Draws(0.0, NO, NO))
    assert (flipped, was_flipped) == (False, True)
    assert torch.equal(mirrored, plain.flip(2))
    assert torch.equal(mirrored_region, region.flip(1))


def test_the_region_of_several_boxes_is_all_of_them():
    image, boxes = picture(), [(2.0, 3.0, 12.0, 14.0), (20.0, 5.0, 30.0, 28.0)]
    transform = TrainTransform(32, 16, augment=False)
    _, both, _ = transform(image, boxes, Draws())
    first, second = (transform(image, [box], Draws())[1] for box in boxes)
    assert torch.equal(both, torch.maximum(first, second))
    assert both.sum() > max(first.sum(), second.sum())


def test_without_colour_jitter_images_are_only_mirrored():
    image, transform = picture(), TrainTransform(32, 16, colour_jitter=False)
    plain, _, _ = transform(image, None, Draws(NO))
    mirrored, _, flipped = transform(image, None, Draws(0.0))
    assert torch.equal(plain, normalise(resize(image, 32, "opencv_bilinear")))
    assert flipped and torch.equal(mirrored, plain.flip(2))


def test_grayscale_leaves_three_equal_channels():
    tensor, _, _ = TrainTransform(32, 16)(picture(), None, Draws(NO, 0.0, NO))
    levels = denormalise(tensor)
    assert (levels[..., 0] == levels[..., 1]).all()
    assert (levels[..., 0] == levels[..., 2]).all()


def test_an_unknown_jitter_rule_lists_the_legal_ones():
    with pytest.raises(ValueError, match="released, torchvision"):
        TrainTransform(jitter_rule="none")


def test_torchvisions_jitter_at_its_neutral_strengths_leaves_the_image_alone():
    transform = TrainTransform(32, 16, jitter_rule="torchvision")
    plain, _, _ = transform(picture(), None, Draws(NO, NO, NO))
    jittered, _, _ = transform(picture(), None, Draws(NO, NO, 0.0))
    # Hue goes through 8-bit HSV, which rounds.
    assert np.abs(denormalise(plain).astype(int) - denormalise(jittered)).max() <= 6


def test_jitter_changes_the_image_but_not_its_region():
    image, box = picture(), (5.0, 4.0, 20.0, 30.0)
    results = [TrainTransform(32, 16)(image, [box], np.random.default_rng(s)) for s in range(8)]
    unflipped = [region for _, region, flipped in results if not flipped]
    assert len({tuple(image.flatten()[:50].tolist()) for image, _, _ in results}) > 4
    assert all(torch.equal(region, unflipped[0]) for region in unflipped)


def test_how_often_images_are_flipped_and_grey_is_as_released():
    image = picture(4, 4)
    flips, greys = 0, 0
    for seed in range(400):
        transform = TrainTransform(4, 4, jitter_rule="torchvision")
        tensor, _, flipped = transform(image, None, np.random.default_rng(seed))
        levels = denormalise(tensor).astype(int)
        flips += flipped
        greys += (np.ptp(levels, axis=2) <= 1).all()
    assert 160 < flips < 240
    assert 50 < greys < 112


def test_without_augmentation_nothing_is_drawn_and_pillow_resizes():
    image = picture()
    tensor, region, flipped = TrainTransform(32, 16, augment=False)(image, [(0, 0, 9, 9)], Draws())
    assert torch.equal(tensor, normalise(resize(image, 32, "pil_bicubic")))
    assert region.shape == (16, 16)
    assert not flipped
