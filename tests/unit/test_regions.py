"""Regions: boxes cut to the image by the released rule, drawn and resized."""

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from groundwork.dataset.regions import covers_a_pixel, pixel_corners, region_mask

SIZE = (60, 80)
CORNER = st.floats(-200, 500, allow_subnormal=False)


def drawn(box, size, side, mask_size):
    """The released rule, step by step."""
    height, width = size
    mask = np.zeros(size, dtype=np.float32)
    x1, x2 = int(min(max(box[0], 0), width - 1)), int(min(max(box[2], 1), width))
    y1, y2 = int(min(max(box[1], 0), height - 1)), int(min(max(box[3], 1), height))
    mask[y1:y2, x1:x2] = 1
    mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_NEAREST)
    return functional.interpolate(
        torch.from_numpy(mask)[None, None], size=mask_size, mode="bilinear", align_corners=True
    )[0, 0]


@settings(deadline=None, max_examples=150)
@given(
    box=st.tuples(CORNER, CORNER, CORNER, CORNER),
    size=st.tuples(st.integers(1, 300), st.integers(1, 300)),
    side=st.sampled_from([16, 64, 100]),
    mask_size=st.sampled_from([16, 64, 77]),
)
def test_the_mask_of_two_axes_is_the_mask_drawn_and_resized(box, size, side, mask_size):
    expected = drawn(box, size, side, mask_size)
    torch.testing.assert_close(region_mask([box], size, side, mask_size), expected)


@pytest.mark.parametrize(
    ("box", "corners"),
    [
        ((-9.5, -4.0, 33.0, 41.0), (0, 0, 33, 41)),
        ((12.7, 8.2, 88.9, 77.6), (12, 8, 80, 60)),
        ((-30.0, 5.0, -10.0, 20.0), (0, 5, 1, 20)),  # left of the image: its first column
        ((100.0, 5.0, 120.0, 20.0), (79, 5, 80, 20)),  # right of it: the last one
        ((30.0, 9.0, 5.0, 20.0), (30, 9, 5, 20)),
    ],
)
def test_corners_are_cut_to_the_image_and_to_integers(box, corners):
    assert pixel_corners([box], SIZE).tolist() == [list(corners)]


def test_a_box_without_width_crossed_or_within_a_pixel_covers_nothing():
    bad = [(9.0, 9.0, 9.0, 30.0), (30.0, 9.0, 5.0, 20.0), (3.2, 3.0, 3.8, 9.0)]
    assert covers_a_pixel([*bad, (3.0, 3.0, 4.0, 4.0)], SIZE).tolist() == [False] * 3 + [True]
    assert not region_mask(bad, SIZE, 32, 16).any()


def test_a_box_over_the_whole_image_gives_a_mask_of_ones():
    assert region_mask([(0, 0, 80, 60)], SIZE, 32, 256).eq(1).all()


def test_the_edges_of_a_mask_of_the_networks_size_are_sharp():
    values = region_mask([(7.0, 11.0, 40.0, 50.0)], SIZE, 256, 256).unique()
    assert values.tolist() == [0, 1]
