"""Large-scale jitter: the view keeps its targets, and boxes and masks move along with it."""

import numpy as np
import pytest

from groundwork.dataset.scale_jitter import View, draw_view
from tests.helpers.masks import boxes_to_mask

SIZE = (60, 90)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_view_lies_in_the_image_and_keeps_every_target(count):
    boxes = np.array([[10.0, 20, 30, 40], [50, 10, 60, 30]])[:count]
    nearer = 0
    for seed in range(60):
        view = draw_view(SIZE, boxes, np.random.default_rng(seed))
        assert view.kept(boxes) >= 0.5
        assert 0 <= view.left <= 90 - view.width and 0 <= view.top <= 60 - view.height
        assert view.factor == 1 or view.size == SIZE
        nearer += view.size != SIZE
    assert 5 < nearer < 40  # 4 of 11 factors enlarge


def test_targets_at_opposite_corners_leave_the_image_whole():
    corners = np.array([[0.0, 0, 3, 3], [87, 57, 90, 60]])
    views = [draw_view(SIZE, corners, np.random.default_rng(seed)) for seed in range(40)]
    assert {view.size for view in views} == {SIZE}


def test_boxes_and_masks_move_together():
    view = View(left=20, top=10, width=50, height=40)
    box = np.array([[30.0, 5, 60, 35]])
    moved = view.boxes(box)
    assert moved.tolist() == [[10, 0, 40, 25]]
    assert (view.mask(boxes_to_mask(box, SIZE)) == boxes_to_mask(moved, view.size)).all()
    assert view.kept(box) == pytest.approx(25 / 30)


def test_from_farther_an_image_loses_detail_and_its_boxes_stay():
    stripes = np.zeros((*SIZE, 3), np.uint8)
    stripes[:, ::2] = 255
    seen = View(0, 0, 90, 60, factor=0.5).image(stripes)
    assert seen.shape == stripes.shape and seen.std() < stripes.std() / 4
