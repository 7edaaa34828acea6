"""How heat maps fit to boxes, and the regions that are cut out of them."""

import numpy as np
import pytest

from groundwork import metrics
from groundwork.geometry import mask_to_box, otsu_mask


def test_otsu_takes_the_connected_region_with_most_heat():
    heat = np.zeros((10, 12), dtype=np.float32)
    heat[1:7, 1:7] = 0.6  # larger
    heat[8:10, 9:12] = 5.0  # hotter: 30 against 21.6
    assert mask_to_box(otsu_mask(heat)) == (9, 8, 12, 10)
    heat[8:10, 9:12] = 2.0
    heat[1:7, 1:7] = 1.5
    assert mask_to_box(otsu_mask(heat)) == (1, 1, 7, 7), "and not only the hottest pixel's"
    diagonal = np.eye(6)
    assert otsu_mask(diagonal).sum() == 6, "corners connect"
    for flat in (np.zeros((3, 4)), np.full((3, 4), 2.0), -np.ones((2, 2))):
        assert not otsu_mask(flat).any() and otsu_mask(flat).dtype == bool
    with pytest.raises(ValueError, match="finite"):
        otsu_mask(np.full((2, 2), np.nan))


def test_energy_is_the_share_of_the_map_inside_the_boxes():
    heat = np.array([[1, 2, 3], [4, -9, 0]], dtype=np.float32)
    assert metrics.energy_inside(heat, (0, 0, 2, 1)) == pytest.approx(3 / 10)
    assert metrics.energy_inside(heat, [(0, 0, 2, 1), (0, 0, 1, 2)]) == pytest.approx(7 / 10)
    # A pixel is in a box if its centre is: that at 0.5 is, that at 1.5 is not.
    assert metrics.energy_inside(heat, (0.5, 0, 1.5, 1)) == pytest.approx(1 / 10)
    assert metrics.energy_inside(np.zeros((2, 3)), (0, 0, 3, 2)) == 0
    assert metrics.energy_inside(heat, np.zeros((0, 4))) == 0


def test_the_iou_of_a_map_is_taken_at_half_and_at_its_best_threshold():
    heat = np.array([[8, 5, 3, 0]], dtype=np.float32)
    truth = (0, 0, 3, 1)
    assert metrics.map_iou(heat, truth) == pytest.approx(2 / 3)
    assert metrics.map_iou(heat, truth, 0.3) == 1
    assert metrics.best_map_iou(heat, truth) == 1
    assert metrics.best_map_iou(heat, (1, 0, 2, 1)) == pytest.approx(1 / 2)
    level = np.array([[2, 2, 2, 0]], dtype=np.float32)
    assert metrics.best_map_iou(level, (0, 0, 1, 1)) == pytest.approx(1 / 3), "ties stay together"
    for score in (metrics.map_iou, metrics.best_map_iou):
        assert score(np.zeros((2, 3)), (0, 0, 3, 2)) == 0


def test_the_best_threshold_is_never_worse_than_any_fixed_one():
    draw = np.random.default_rng(0)
    for _ in range(20):
        heat, box = draw.random((9, 7)), (1, 2, 5, 6)
        best = metrics.best_map_iou(heat, box)
        every = [metrics.map_iou(heat, box, value / heat.max()) for value in heat.ravel()]
        assert best == pytest.approx(max(every))


def test_a_shared_maximum_hits_as_often_as_a_drawn_one():
    heat, size = np.zeros((6, 8), dtype=np.float32), (12, 16)  # a cell is two pixels wide
    heat[2, 3] = heat[2, 7] = heat[5, 0] = 1  # centres at (7, 5), (15, 5), (1, 11)
    assert metrics.expected_hit(heat, (6, 4, 8, 6), size) == pytest.approx(1 / 3)
    assert metrics.expected_hit(heat, [(6, 4, 8, 6), (14, 4, 16, 6)], size) == pytest.approx(2 / 3)
    assert metrics.shared_maximum(heat)
    heat[2, 3] = 2
    assert metrics.expected_hit(heat, (6, 4, 8, 6), size) == 1
    for edge in ((7, 4, 8, 6), (6, 4, 7, 6), (6, 5, 8, 6), (6, 4, 8, 5)):
        assert metrics.expected_hit(heat, edge, size) == 0, "on the edge, as in the game"
    assert not metrics.shared_maximum(heat)
    flat = np.zeros((4, 4))
    assert metrics.expected_hit(flat, (0, 0, 20, 40), (40, 40)) == pytest.approx(8 / 16)
    assert metrics.expected_hit(flat, np.zeros((0, 4)), (4, 4)) == 0


def test_the_area_under_a_curve_is_its_mean_by_trapezoids():
    curves = [[1, 1, 1], [1, 0, 0], [0, 1, 0]]
    np.testing.assert_allclose(metrics.area_under(curves), [1, 0.25, 0.5])
