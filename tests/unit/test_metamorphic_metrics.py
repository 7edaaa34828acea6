"""Metrics and geometry of boxes, maps and masks that are moved, enlarged, mirrored, turned or put
in another order all together."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from groundwork import geometry, metrics
from groundwork.metrics import calibration, paired, several

SIDE = 24  # of the square images, in pixels
SIZE = (SIDE, SIDE)
few = settings(max_examples=20, deadline=None)


@st.composite
def some_boxes(draw: st.DrawFn, least: int = 1) -> np.ndarray:
    """(n, 4) of whole pixels within the image, each with some area."""
    ends = st.tuples(st.integers(0, SIDE), st.integers(0, SIDE)).map(sorted)
    ends = ends.filter(lambda two: two[0] < two[1])
    found = draw(st.lists(st.tuples(ends, ends), min_size=least, max_size=4))
    return np.array([[x[0], y[0], x[1], y[1]] for x, y in found], dtype=float).reshape(-1, 4)


@st.composite
def some_maps(draw: st.DrawFn) -> np.ndarray:
    """(SIDE, SIDE) with sums that have no rounding; some have equal maxima, some are empty."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return generator.integers(-2, draw(st.integers(1, 9)), SIZE).astype(float)


# What is done to boxes and to a map of the image, so that both still belong together.
MOVES: dict[str, tuple[Callable[[np.ndarray], np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "mirrored": (lambda boxes: geometry.flip_boxes(boxes, SIDE), lambda map_: map_[:, ::-1]),
    "turned": (lambda boxes: boxes[:, [1, 0, 3, 2]], lambda map_: map_.T),
    "enlarged": (lambda boxes: 2 * boxes, lambda map_: map_.repeat(2, 0).repeat(2, 1)),
    "moved": (lambda boxes: boxes + [3, 5, 3, 5], lambda map_: np.pad(map_, ((5, 0), (3, 0)))),
}


@pytest.mark.parametrize("pairs", [geometry.iou, geometry.giou])
@pytest.mark.parametrize("name", MOVES)
@few
@given(first=some_boxes(), second=some_boxes())
def test_overlaps_belong_to_pairs_wherever_they_are(name, pairs, first, second):
    changed, _ = MOVES[name]
    expected = pairs(first, second)
    np.testing.assert_allclose(pairs(changed(first), changed(second)), expected, atol=1e-12)
    np.testing.assert_array_equal(pairs(second, first), expected.T)
    np.testing.assert_array_equal(pairs(first[::-1], second), expected[::-1])
    assert (expected <= 1).all() and (expected >= -1).all()


@pytest.mark.parametrize("name", MOVES)
@few
@given(boxes=some_boxes(), truths=some_boxes())
def test_answers_are_right_wherever_they_are_and_in_any_order(name, boxes, truths):
    changed, _ = MOVES[name]
    for score in (several.f1_score, several.matched_boxes):
        assert score(changed(boxes), changed(truths)) == score(boxes, truths)
    assert several.f1_score(truths[::-1], truths) == 1
    box = boxes[0]
    for threshold in (0.25, 0.5):
        right = metrics.box_correct(box, truths, threshold)
        assert metrics.box_correct(changed(boxes)[0], changed(truths), threshold) == right
        assert metrics.box_correct(box, truths[::-1], threshold) == right
    one, other = metrics.proposal_iou(box, truths[0]), metrics.proposal_iou(truths[0], box)
    assert one == other


@pytest.mark.parametrize("name", MOVES)
@few
@given(boxes=some_boxes(), point=st.tuples(st.integers(0, SIDE), st.integers(0, SIDE)))
def test_a_point_is_in_a_box_wherever_they_are(name, boxes, point):
    changed, _ = MOVES[name]
    dot = np.array([[*point, *point]], dtype=float)  # a box without area moves as a point
    for one in (boxes, boxes[::-1]):
        moved = tuple(changed(dot)[0, :2])
        assert metrics.pointing_any(moved, changed(one)) == metrics.pointing_any(point, boxes)
        same = metrics.same_object(moved, moved, changed(one))
        assert same == metrics.pointing_any(point, boxes)


@few
@given(boxes=some_boxes())
def test_chance_is_the_same_in_a_mirrored_a_turned_and_an_enlarged_image(boxes):
    chance, hit = metrics.random_hit_probability(SIZE, boxes), metrics.centre_hit(SIZE, boxes)
    for name, factor in (("mirrored", 1), ("turned", 1), ("enlarged", 2)):
        changed, size = MOVES[name][0], (factor * SIDE, factor * SIDE)
        assert metrics.random_hit_probability(size, changed(boxes)) == chance
        assert metrics.centre_hit(size, changed(boxes)) == hit
    assert 0 < chance <= 1


@pytest.mark.parametrize("name", MOVES)
@few
@given(heat=some_maps(), boxes=some_boxes())
def test_maps_fit_to_boxes_wherever_both_are(name, heat, boxes):
    changed, seen = MOVES[name]
    for fit in (metrics.energy_inside, metrics.map_iou, metrics.best_map_iou):
        expected = fit(heat, boxes)
        assert fit(seen(heat), changed(boxes)) == expected
        assert fit(8 * heat, boxes[::-1]) == expected
        assert 0 <= expected <= 1
    assert metrics.best_map_iou(heat, boxes) >= metrics.map_iou(heat, boxes)


@few
@given(heat=some_maps(), boxes=some_boxes())
def test_a_point_among_equal_maxima_hits_as_often_in_a_mirrored_and_an_enlarged_image(heat, boxes):
    expected = metrics.expected_hit(heat, boxes, SIZE)
    for name in ("mirrored", "turned"):
        changed, seen = MOVES[name]
        assert metrics.expected_hit(seen(heat), changed(boxes), SIZE) == pytest.approx(expected)
    # The map of an image that is enlarged keeps its grid.
    large = metrics.expected_hit(heat, 2 * boxes, (2 * SIDE, 2 * SIDE))
    assert large == pytest.approx(expected)
    assert metrics.shared_maximum(heat) == metrics.shared_maximum(heat.T[::-1])


@few
@given(heat=some_maps(), boxes=some_boxes())
def test_the_densest_proposal_is_the_same_one_in_another_order_and_of_a_hotter_map(heat, boxes):
    index, box = metrics.best_proposal(heat, boxes)
    assert metrics.best_proposal(4 * heat, boxes) == (index, box)
    for name in ("mirrored", "turned"):
        changed, seen = MOVES[name]
        assert metrics.best_proposal(seen(heat), changed(boxes))[0] == index
    outside = np.array([[SIDE, SIDE, SIDE + 9, SIDE + 9]])
    assert metrics.best_proposal(heat, np.concatenate([boxes, outside])) == (index, box)


@few
@given(heat=some_maps())
def test_the_region_of_a_mirrored_map_is_the_mirrored_region(heat):
    heat = heat + np.linspace(0, 0.4, SIDE) / 7  # no two blobs are equally large and hot
    for region in (geometry.heatmap_to_mask, geometry.otsu_mask):
        mask = region(heat)
        if region is geometry.otsu_mask or mask.sum() > SIDE * SIDE / 2:
            np.testing.assert_array_equal(region(heat[:, ::-1]), mask[:, ::-1])
        np.testing.assert_array_equal(region(2 * heat), mask)


@few
@given(first=some_maps(), second=some_maps())
def test_masks_overlap_alike_from_both_sides_and_mirrored(first, second):
    one, other = first > 0, second > 0
    overlap = metrics.mask_overlap(one, other)
    assert metrics.mask_overlap(other, one) == overlap
    assert metrics.mask_overlap(one[:, ::-1], other[:, ::-1]) == overlap
    assert metrics.mask_overlap(~one, ~other)[1] == one.size - overlap[0]


@few
@given(first=some_maps(), second=some_maps())
def test_maps_are_as_alike_whatever_is_added_to_one_and_however_it_is_scaled(first, second):
    maps, others = np.stack([first, second]), np.stack([second, second])
    expected = metrics.map_correlation(maps, others)
    np.testing.assert_allclose(metrics.map_correlation(others, maps), expected, atol=1e-9)
    np.testing.assert_allclose(metrics.map_correlation(4 * maps + 8, others), expected, atol=1e-9)
    np.testing.assert_allclose(
        metrics.map_correlation(maps[..., ::-1], others[..., ::-1]), expected, atol=1e-9
    )


NUMBERS = st.lists(st.integers(-9, 9), min_size=2, max_size=30)


@few
@given(numbers=NUMBERS, seed=st.integers(0, 99))
def test_a_mean_is_of_all_samples_in_any_order_and_scales_with_them(numbers, seed):
    order = np.random.default_rng(seed).permutation(len(numbers))
    values = np.array(numbers, dtype=float)
    row = metrics.result_row(values, keys={})
    assert metrics.result_row(values[order], keys={})["value"] == row["value"]
    double = metrics.result_row(2 * values, keys={})
    assert [double[key] for key in ("value", "low", "high")] == [
        pytest.approx(2 * row[key]) for key in ("value", "low", "high")
    ]
    # Which image is called what does not matter.
    images = [number % 3 for number in range(len(values))]
    named = metrics.bootstrap_interval(values, groups=[f"{one}.jpg" for one in images], n_boot=50)
    assert metrics.bootstrap_interval(values, groups=images, n_boot=50) == named


@few
@given(numbers=NUMBERS, seed=st.integers(0, 99))
def test_ranks_and_thresholds_do_not_depend_on_the_order_or_the_scale(numbers, seed):
    draws = np.random.default_rng(seed)
    values, truth = np.array(numbers, dtype=float), np.arange(len(numbers)) % 2 == 0
    order = draws.permutation(len(values))
    area = calibration.area_under_roc(values, truth)
    assert calibration.area_under_roc(values[order], truth[order]) == pytest.approx(area)
    assert calibration.area_under_roc(np.exp(values), truth) == pytest.approx(area)
    assert calibration.area_under_roc(-values, truth) == pytest.approx(1 - area)
    assert calibration.area_under_roc(values, ~truth) == pytest.approx(1 - area)
    if len(set(numbers)) > 1:
        threshold = calibration.best_threshold(values, truth)
        assert calibration.best_threshold(values[order], truth[order]) == threshold
        best = calibration.balanced_accuracy(values, truth, threshold)
        for one in values[values > values.min()]:
            assert calibration.balanced_accuracy(values, truth, one) <= best + 1e-9


@few
@given(first=st.lists(st.booleans(), min_size=1, max_size=30), seed=st.integers(0, 99))
def test_what_one_of_two_systems_wins_the_other_loses(first, seed):
    second = np.random.default_rng(seed).random(len(first)) < 0.5
    won, lost, p = paired.mcnemar(first, second)
    assert paired.mcnemar(second, first) == (lost, won, pytest.approx(p))
    assert won - lost == int(second.sum()) - sum(first)
    assert paired.mcnemar(first[::-1], second[::-1]) == (won, lost, p)
