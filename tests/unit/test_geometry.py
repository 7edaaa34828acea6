"""Boxes, points and masks keep their conventions."""

import json
import math

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from groundwork import geometry
from groundwork.geometry.segmentations import degenerate_polygons, encode_segmentation
from tests.helpers.masks import boxes_to_mask

SIDES = st.integers(1, 2000)
FRACTIONS = st.floats(0, 1, allow_nan=False)


@st.composite
def boxes_in_images(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int]]:
    height, width = draw(SIDES), draw(SIDES)
    x1, x2 = sorted(draw(st.tuples(FRACTIONS, FRACTIONS)))
    y1, y2 = sorted(draw(st.tuples(FRACTIONS, FRACTIONS)))
    return np.array([x1 * width, y1 * height, x2 * width, y2 * height]), (height, width)


@given(boxes_in_images())
def test_boxes_survive_the_way_to_every_format_and_back(case):
    box, size = case
    close = {"rtol": 1e-9, "atol": 1e-9 * max(size)}
    np.testing.assert_allclose(geometry.xywh_to_xyxy(geometry.xyxy_to_xywh(box)), box, **close)
    inside = geometry.xyxy_to_cxcywh01(box, size)
    assert (inside >= 0).all() and (inside <= 1 + 1e-12).all()
    np.testing.assert_allclose(geometry.cxcywh01_to_xyxy(inside, size), box, **close)
    np.testing.assert_allclose(
        geometry.flip_boxes(geometry.flip_boxes(box, size[1]), size[1]), box, **close
    )


def test_boxes_of_any_number_of_dimensions_are_converted_one_by_one():
    boxes = np.sort(np.random.default_rng(0).random((2, 3, 2, 2)), axis=2).reshape(2, 3, 4)
    size = (5, 7)
    conversions = [
        geometry.xywh_to_xyxy, geometry.xyxy_to_xywh, geometry.area,
        lambda one: geometry.xyxy_to_cxcywh01(one, size),
        lambda one: geometry.cxcywh01_to_xyxy(one, size),
        lambda one: geometry.scale_boxes(one, size, (3, 2)),
        lambda one: geometry.clip_boxes(one, size), lambda one: geometry.flip_boxes(one, 7),
    ]  # fmt: skip
    for convert in conversions:
        alone = [[convert(box) for box in row] for row in boxes]
        np.testing.assert_array_equal(convert(boxes), alone)


@given(boxes_in_images(), SIDES, SIDES)
def test_boxes_survive_resizing_and_back(case, height, width):
    box, size = case
    resized = geometry.scale_boxes(box, size, (height, width))
    np.testing.assert_allclose(
        geometry.scale_boxes(resized, (height, width), size), box, rtol=1e-9, atol=1e-6
    )


@given(boxes_in_images())
def test_a_box_overlaps_itself_wholly_and_its_centre_is_inside(case):
    box, size = case
    if (box[2:] - box[:2]).min() < 1e-3:
        return
    assert geometry.iou(box, box)[0, 0] == pytest.approx(1)
    assert geometry.points_in_boxes(geometry.box_to_point(box), box).all()
    np.testing.assert_array_equal(geometry.clip_boxes(box, size), box)


@given(st.lists(st.integers(0, 30), min_size=4, max_size=4), st.integers(31, 40))
def test_a_box_of_whole_pixels_survives_the_way_through_a_mask(corners, side):
    x1, x2 = sorted(corners[:2])
    y1, y2 = sorted(corners[2:])
    mask = boxes_to_mask((x1, y1, x2, y2), (side, side + 3))
    assert mask.sum() == (x2 - x1) * (y2 - y1)
    expected = (x1, y1, x2, y2) if mask.any() else None
    assert geometry.mask_to_box(mask) == expected


def test_iou_of_hand_computed_boxes():
    values = geometry.iou(
        [[0, 0, 10, 10], [3, 3, 3, 3]], [[5, 0, 15, 10], [20, 20, 30, 30], [3, 3, 3, 3]]
    )
    np.testing.assert_allclose(values, [[50 / 150, 0, 0], [0, 0, 0]])


def test_a_box_whose_corners_are_crossed_has_no_area_and_small_ones_overlap_as_large_ones():
    assert geometry.area([[5, 5, 2, 3], [5, 1, 2, 3], [0, 0, 2, 3]]).tolist() == [0, 0, 6]
    assert geometry.iou([0, 0, 0.5, 0.5], [0, 0, 0.5, 0.25]) == 0.5
    for size in ((0, 5), (5, 0)):
        with pytest.raises(ValueError, match="positive"):
            geometry.clip_boxes([0, 0, 1, 1], size)


def test_generalised_iou_of_hand_computed_boxes():
    values = geometry.giou(
        [[0, 0, 10, 10], [3, 3, 3, 3]], [[5, 0, 15, 10], [20, 0, 30, 10], [3, 3, 3, 3]]
    )
    # The box around both has 150 square pixels, of which 0 are empty; 300, of which 100 are; 100.
    np.testing.assert_allclose(values[0], [1 / 3, -1 / 3, 0])
    np.testing.assert_allclose(values[1], [-20 / 120, -170 / 270, 0])
    assert geometry.giou([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_the_box_around_boxes_and_the_middle_of_one():
    boxes = [[4, 9, 7, 12], [2, 10, 5, 20]]
    assert geometry.enclosing_box(boxes) == (2, 9, 7, 20)
    assert geometry.box_to_point([4, 9, 7, 12]) == (5.5, 10.5)


def test_a_point_on_the_edge_is_outside():
    box = (10, 20, 30, 40)
    assert geometry.points_in_boxes((11, 21), box).all()
    assert not any(geometry.points_in_boxes(p, box).any() for p in [(10, 30), (30, 30), (20, 40)])


def test_a_union_counts_overlaps_once():
    assert geometry.union_area([[0, 0, 10, 10], [5, 5, 15, 15], [0, 0, 2, 2]]) == 175
    assert geometry.union_area([[0, 0, 2, 2], [10, 10, 12, 13]]) == 10
    assert geometry.union_area([]) == geometry.union_area([[3, 3, 3, 9]]) == 0


@given(st.lists(st.lists(st.integers(0, 12), min_size=4, max_size=4), max_size=6))
def test_a_union_of_whole_pixels_has_as_much_area_as_its_mask(corners):
    boxes = [(min(a, b), min(c, d), max(a, b), max(c, d)) for a, b, c, d in corners]
    assert geometry.union_area(boxes) == boxes_to_mask(boxes, (12, 12)).sum()


def test_boxes_outside_the_image_are_cut_to_it():
    clipped = geometry.clip_boxes([[-5, -5, 5, 5], [90, 10, 120, 20]], (50, 80))
    np.testing.assert_array_equal(clipped, [[0, 0, 5, 5], [80, 10, 80, 20]])
    assert geometry.area(clipped).tolist() == [25, 0]


def test_corners_are_cut_towards_zero_before_they_are_clipped():
    corners = geometry.integer_corners([[-0.9, 1.9, 3.99, 99.5]], (10, 10))
    assert corners.tolist() == [[0, 1, 3, 10]]
    assert geometry.integer_corners([[-5, -7, 3, 4]], (10, 10)).tolist() == [[0, 0, 3, 4]]


@pytest.mark.parametrize("box", [[10, 20, 5, 5], [0, 0, 1], [0, 0, np.nan, 1]])
def test_what_is_no_xyxy_box_is_refused(box):
    with pytest.raises(ValueError, match="box"):
        geometry.as_boxes(box)


def test_no_boxes_are_an_empty_array():
    assert geometry.as_boxes([]).shape == (0, 4)
    assert geometry.iou([], [[0, 0, 1, 1]]).shape == (0, 1)


def test_a_heat_map_gives_the_box_of_its_largest_hot_blob():
    heatmap = np.zeros((20, 30), dtype=np.float32)
    heatmap[2:4, 3:5] = 1.0
    heatmap[10:15, 8:20] = 0.6
    heatmap[0, 0] = -5
    mask = geometry.heatmap_to_mask(heatmap)
    assert mask.sum() == 60 and geometry.mask_to_box(mask) == (8, 10, 20, 15)
    hottest = geometry.heatmap_to_mask(heatmap, fraction=0.9)
    assert geometry.mask_to_box(hottest) == (3, 2, 5, 4)
    assert geometry.heatmap_to_mask(heatmap, fraction=1).sum() == 4
    assert geometry.heatmap_to_mask(heatmap[:0]).shape == (0, 30)


def test_a_heat_map_without_heat_gives_no_box():
    for heatmap in (np.zeros((4, 5)), np.full((4, 5), -1.0)):
        mask = geometry.heatmap_to_mask(heatmap)
        assert not mask.any() and geometry.mask_to_box(mask) is None
    with pytest.raises(ValueError, match="finite"):
        geometry.heatmap_to_mask(np.full((4, 5), np.nan))
    with pytest.raises(ValueError, match="fraction"):
        geometry.heatmap_to_mask(np.ones((4, 5)), fraction=0)


def test_a_grounding_must_be_consistent():
    given_parts = {
        "phrase": "a cat",
        "point": (1, 2),
        "boxes": np.zeros((1, 4)),
        "scores": np.ones(1),
        "mask": None,
        "heatmap": None,
        "size": (4, 5),
    }
    assert geometry.Grounding(**given_parts).derived == frozenset()
    with pytest.raises(ValueError, match="scores"):
        geometry.Grounding(**{**given_parts, "scores": np.ones(2)})
    with pytest.raises(ValueError, match="mask"):
        geometry.Grounding(**{**given_parts, "mask": np.ones((5, 4), dtype=bool)})
    with pytest.raises(ValueError, match="derived"):
        geometry.Grounding(**given_parts, derived=frozenset({"heatmap"}))


MASK = np.zeros((6, 9), dtype=bool)
MASK[1:4, 2:7] = True
UNCOMPRESSED = {"size": [6, 9], "counts": [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 14]}


@pytest.mark.parametrize(
    "segmentation",
    [[[2, 1, 7, 1, 7, 4, 2, 4]], UNCOMPRESSED, geometry.mask_to_runs(MASK)],
    ids=["polygons", "uncompressed runs", "compressed runs"],
)
def test_every_form_of_coco_segmentation_decodes_to_the_same_mask(segmentation):
    assert np.array_equal(geometry.decode_mask(json.dumps(segmentation), (6, 9)), MASK)


@given(old=st.integers(1, 900), new=st.integers(1, 900))
def test_masks_are_resized_by_the_nearest_pixel_of_either_library(old, new):
    mask = np.random.default_rng(old).random((old, 2)) > 0.5
    values = torch.from_numpy(mask)[None, None].float()
    torchs = F.interpolate(values, size=(new, 2), mode="nearest")[0, 0].bool().numpy()
    opencvs = cv2.resize(mask.astype(np.uint8), (2, new), interpolation=cv2.INTER_NEAREST) > 0
    assert np.array_equal(geometry.resize_mask(mask, (new, 2)), torchs)
    assert np.array_equal(geometry.resize_mask(mask, (new, 2), "opencv"), opencvs)


def test_opencv_finds_the_nearest_pixel_in_double_precision():
    rows = np.arange(448)[:, None]
    exact = [min(math.floor(i * (1 / (640 / 448))), 447) for i in range(640)]
    assert geometry.resize_mask(rows, (640, 1), "opencv").ravel().tolist() == exact
    assert geometry.resize_mask(rows, (640, 1)).ravel().tolist() != exact


def test_polygons_without_three_corners_have_no_pixels_beside_others():
    square, line, point = [2, 1, 7, 1, 7, 4, 2, 4], [0, 0, 5, 5], [1, 1]
    for shapes in ([square, line], [line, square], [point, square, line]):
        assert np.array_equal(geometry.decode_mask(json.dumps(shapes), (6, 9)), MASK)
    with pytest.raises(ValueError, match="every polygon of a segmentation has fewer than three"):
        geometry.decode_mask(json.dumps([line]), (6, 9))
    with pytest.raises(ValueError, match="an x without its y"):
        geometry.decode_mask(json.dumps([[*square, 3]]), (6, 9))


def test_polygons_that_cannot_have_a_pixel_are_counted_by_their_fault():
    square, line, flat = [2, 1, 7, 1, 7, 4, 2, 4], [0, 0, 5, 5], [0, 0, 3, 3, 6, 6]
    assert degenerate_polygons([square, line, flat, flat]) == (1, 2)
    assert degenerate_polygons([square, UNCOMPRESSED, [line, flat]]) == (0, 0), "not polygons"
    assert degenerate_polygons([square, UNCOMPRESSED, flat]) == (0, 1)
    assert degenerate_polygons(UNCOMPRESSED) == degenerate_polygons("line") == (0, 0)


def test_runs_come_back_as_the_mask_that_they_were():
    runs = geometry.mask_to_runs(MASK)
    again = geometry.runs_to_mask(runs["counts"], MASK.shape)
    assert again.dtype == bool and np.array_equal(again, MASK)
    as_bytes = {"size": [6, 9], "counts": runs["counts"].encode()}
    assert encode_segmentation(as_bytes, MASK.shape) == as_bytes
    assert json.loads(json.dumps(runs)) == runs == {"size": [6, 9], "counts": runs["counts"]}


def test_a_mask_file_is_found_below_its_root_and_must_fit_the_image(tmp_path):
    np.save(tmp_path / "m.npy", MASK.astype(np.uint8))
    assert np.array_equal(geometry.decode_mask("m.npy", (6, 9), tmp_path), MASK)
    with pytest.raises(ValueError, match="m.npy has shape"):
        geometry.decode_mask("m.npy", (9, 6), tmp_path)
    with pytest.raises(FileNotFoundError, match="n.npy"):
        geometry.decode_mask("n.npy", (6, 9), tmp_path)


@pytest.mark.parametrize("text", ["[]", "[[1, 2]]", "7", '{"size": [2, 2]}'])
def test_what_is_no_segmentation_is_refused(text):
    with pytest.raises(ValueError, match="segmentation"):
        geometry.decode_mask(text, (6, 9))
