"""The metrics agree with hand computation and with the published evaluation."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from groundwork import metrics
from groundwork.metrics import several
from groundwork.metrics.paired import mcnemar
from groundwork.models.common.heatmap import enlarge, first_maximum
from tests.golden.golden_evaluation import check_pointing

GOLDEN = Path(__file__).parents[1] / "golden" / "pointing.npz"
BOX = (10, 20, 30, 40)


def test_all_golden_decisions_are_reproduced():
    with np.load(GOLDEN) as npz:
        check_pointing(npz)


def test_a_changed_golden_decision_is_noticed():
    with np.load(GOLDEN) as npz:
        arrays = dict(npz)
    for name in ("hit", "det_pick", "det_iou", "flickr_hit"):
        changed = {**arrays, name: arrays[name].copy()}
        changed[name][7] = 1 - changed[name][7]
        with pytest.raises(AssertionError, match="case 7"):
            check_pointing(changed)


def test_the_first_of_equal_maxima_is_taken_row_by_row():
    maps = torch.zeros(3, 4, 5)
    maps[0, 2, 1] = maps[0, 1, 4] = maps[0, 3, 0] = 2.0
    maps[2] = -1
    maps[2, 3, 4] = -0.5
    assert first_maximum(maps).tolist() == [[4, 1], [0, 0], [4, 3]]
    assert first_maximum(maps[:0]).shape == (0, 2)


def test_enlarging_is_bicubic_and_keeps_constant_maps():
    heatmap = torch.full((1, 3, 5), 0.25)
    assert torch.allclose(enlarge(heatmap, (31, 17)), torch.full((1, 31, 17), 0.25))
    step = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
    assert enlarge(step, (1, 16)).max() > 1, "bicubic weights overshoot"
    for wrong in (torch.zeros(3, 3), torch.zeros(1, 1, 3, 3)):
        with pytest.raises(ValueError, match="heat maps"):
            enlarge(wrong, (4, 4))
    with pytest.raises(ValueError, match="size"):
        enlarge(heatmap, (0, 4))
    with pytest.raises(ValueError, match="maps"):
        first_maximum(torch.zeros(2, 0, 3))


def test_pointing_is_strict_and_any_box_will_do():
    assert metrics.pointing_any((11, 39), BOX)
    assert not metrics.pointing_any((10, 30), BOX) and not metrics.pointing_any((20, 40), BOX)
    assert metrics.pointing_any((1, 1), [BOX, (0, 0, 2, 2)])
    assert not metrics.pointing_any((5, 5), [BOX, (0, 0, 2, 2)])
    assert metrics.pointing_any((5, 5), []) is False


def test_the_densest_proposal_wins_not_the_hottest_or_the_largest():
    heatmap = np.zeros((100, 100), dtype=np.float32)
    heatmap[10:20, 10:20] = 1
    proposals = [(0, 0, 100, 100), (10, 10, 20, 20), (10, 10, 12, 12), (50, 50, 60, 60)]
    # 100/100, 100/10, 4/2, 0
    assert metrics.best_proposal(heatmap, proposals) == (1, (10, 10, 20, 20))


def test_of_equal_proposals_the_first_wins():
    heatmap = np.ones((10, 10))
    proposals = [(0, 0, 0, 5), (1, 1, 5, 5), (3, 3, 7, 7), (1, 1, 5, 5)]
    assert metrics.best_proposal(heatmap, proposals)[0] == 1


def test_heat_is_summed_in_double_precision():
    heatmap = np.zeros((4, 4), dtype=np.float32)
    heatmap[0, 0] = heatmap[2, 0] = 2**24  # to which single precision cannot add one
    heatmap[2, 1] = 1
    assert metrics.best_proposal(heatmap, [(0, 0, 2, 1), (0, 2, 2, 3)])[0] == 1


def test_the_corners_of_a_proposal_are_cut_to_integers_but_not_its_area():
    heatmap = np.ones((10, 10))
    # Both cover 2 x 2 whole pixels; the second has the smaller area, so it is denser.
    assert metrics.best_proposal(heatmap, [(1.0, 1.0, 3.9, 3.9), (1.0, 1.0, 3.1, 3.1)])[0] == 1


@pytest.mark.parametrize(
    "proposals", [[], [(5, 5, 9, 9)], [(20, 20, 30, 30)], [(2, 2, 2, 2)]], ids=str
)
def test_without_a_positive_proposal_there_is_none_and_it_is_a_miss(proposals):
    heatmap = np.zeros((10, 10))
    heatmap[0, 0], heatmap[5:9, 5:9] = 1, -1
    index, box = metrics.best_proposal(heatmap, proposals)
    assert (index, box) == (-1, None)
    assert not metrics.proposal_correct(box, BOX)


def test_cold_proposals_never_score_by_rounding():
    random = np.random.default_rng(0)
    heatmap = random.random((200, 200)) * 1e3
    heatmap[50:, 50:] = 0
    proposals = [(x, x, x + 37, x + 20) for x in range(50, 160)]
    assert metrics.best_proposal(heatmap, proposals) == (-1, None)


def test_the_iou_of_proposals_is_the_ordinary_one_except_below_two_pixels():
    assert metrics.proposal_iou((0, 0, 10, 10), (5, 0, 15, 10)) == pytest.approx(50 / 150)
    assert metrics.proposal_iou((0, 0, 10, 10), (9, 0, 19, 10)) == 0, "one column is no overlap"
    assert metrics.proposal_iou((0, 0, 10, 10), (8, 0, 18, 10)) == pytest.approx(20 / 180)
    assert metrics.proposal_iou((3, 3, 3, 3), (3, 3, 3, 3)) == 0
    assert metrics.proposal_correct((0, 0, 10, 10), (0, 0, 10, 5)), "exactly 0.5 is correct"


def test_acc_at_iou_takes_the_best_true_box():
    assert metrics.box_correct(BOX, [(0, 0, 1, 1), BOX])
    assert not metrics.box_correct((0, 0, 1, 1), [BOX])
    assert not metrics.box_correct(None, [BOX]) and not metrics.box_correct(BOX, [])
    assert not metrics.box_correct((0, 0, 10, 10), [(0, 0, 10, 6)], threshold=0.7)


def test_an_iou_of_exactly_the_threshold_is_a_miss():
    assert metrics.box_iou((0, 0, 10, 5), (0, 0, 10, 10)) == 0.5
    assert not metrics.box_correct((0, 0, 10, 5), (0, 0, 10, 10))
    assert not metrics.reaches(0.5, 0.5) and metrics.reaches(0.5, 0.5, inclusive=True)
    assert metrics.box_correct((0, 0, 10, 5.1), (0, 0, 10, 10))
    assert metrics.box_correct((0, 0, 10, 5), (0, 0, 10, 10), inclusive=True), "ALVG's protocol"
    assert metrics.box_iou(None, [BOX]) == 0 and not metrics.box_correct(None, [BOX])


def test_masks_overlap_in_pixels():
    left, top = np.zeros((4, 6), bool), np.zeros((4, 6), bool)
    left[:, :3], top[:2] = True, True
    assert metrics.mask_overlap(left, top) == (6, 18)
    assert metrics.mask_overlap(None, top) == (0, 12)
    assert metrics.mask_iou((6, 18)) == 1 / 3
    assert metrics.mask_iou((0, 0)) == 1, "two empty masks agree"
    with pytest.raises(ValueError, match="cannot be compared"):
        metrics.mask_overlap(left.T, top)


def test_a_weighted_mean_of_ratios_is_the_ratio_of_sums():
    overlaps = [(3, 4), (1, 10), (0, 2)]
    ious, unions = [metrics.mask_iou(one) for one in overlaps], [one[1] for one in overlaps]
    row = metrics.result_row(ious, keys={}, weights=unions)
    assert row["value"] == pytest.approx(100 * 4 / 16)
    assert row["low"] <= row["value"] <= row["high"]
    numbers = np.random.default_rng(0).random(40)
    low, high = metrics.bootstrap_interval(numbers, seed=0)
    drawn = metrics.result_row(numbers, keys={})
    assert (drawn["low"], drawn["high"]) == (100 * low, 100 * high)
    assert metrics.result_row([1, 0], keys={}, weights=[0, 0])["value"] == 0
    alike = metrics.result_row(ious, keys={}, weights=[2, 2, 2])
    assert {**alike, "value": pytest.approx(alike["value"])} == metrics.result_row(ious, keys={})
    with pytest.raises(ValueError, match="3 weights"):
        metrics.result_row(ious, keys={}, weights=[1, 2])


def test_chance_levels_are_exact():
    assert metrics.centre_hit((100, 60), [(29, 49, 31, 51)])
    assert not metrics.centre_hit((100, 60), [(30, 40, 60, 60)]), "on the edge"
    size = (50, 40)
    assert metrics.random_hit_probability(size, [(0, 0, 20, 25)]) == 0.25
    assert metrics.random_hit_probability(size, [(0, 0, 20, 25), (0, 0, 20, 50)]) == 0.5
    assert metrics.random_hit_probability(size, [(-100, -100, 100, 100)]) == 1
    assert metrics.random_hit_probability(size, [(40, 0, 80, 50)]) == 0
    assert metrics.random_hit_probability(size, []) == 0


def test_a_pair_agrees_when_one_object_holds_both_points():
    objects = [(0, 0, 10, 10), (5, 5, 20, 20)]
    assert metrics.same_object((6, 6), (19, 19), objects)
    assert not metrics.same_object((1, 1), (19, 19), objects)
    assert not metrics.same_object((50, 50), (50, 50), objects), "background is no object"


def test_map_correlation_agrees_with_numpy_at_any_scale():
    random = np.random.default_rng(1)
    first, second = random.random((5, 4, 6)), random.random((5, 4, 6))
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(metrics.map_correlation(first, second), expected, atol=1e-12)
    np.testing.assert_allclose(
        metrics.map_correlation(first * 1e-200, 3 - second * 1e-3), -np.array(expected), atol=1e-9
    )
    assert metrics.map_correlation(first[:0], second[:0]).shape == (0,)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-30])
def test_constant_maps_have_a_defined_correlation(value):
    constant = np.full((1, 3, 7), value, dtype=np.float32)
    varied = np.arange(21, dtype=np.float32).reshape(1, 3, 7)
    assert metrics.map_correlation(constant, constant * 2) == [1]
    assert metrics.map_correlation(constant, varied) == [0]
    assert metrics.map_correlation(varied, constant) == [0]
    with pytest.raises(ValueError, match="maps"):
        metrics.map_correlation(constant, varied[:, :2])


def test_a_map_is_compared_by_itself_however_small_and_one_without_cells_is_constant():
    random = np.random.default_rng(2)
    maps, others = random.random((2, 4, 6)), random.random((2, 4, 6))
    scale = np.array([1e-200, 1e200])[:, None, None]
    expected = metrics.map_correlation(maps, others)
    np.testing.assert_allclose(metrics.map_correlation(maps * scale, others), expected, atol=1e-9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert metrics.map_correlation(np.zeros((2, 0, 3)), np.zeros((2, 0, 3))).tolist() == [1, 1]


def test_the_bootstrap_interval_matches_the_binomial_one():
    hits = np.arange(1000) % 10 < 7
    low, high = metrics.bootstrap_interval(hits, seed=3)
    error = 1.96 * np.sqrt(0.7 * 0.3 / 1000)
    assert low == pytest.approx(0.7 - error, abs=0.004)
    assert high == pytest.approx(0.7 + error, abs=0.004)
    assert (low, high) == metrics.bootstrap_interval(hits, seed=3)


def test_resamples_are_all_drawn_and_without_weight_count_nothing():
    # More values than are drawn at once for the last of the resamples.
    low, high = metrics.bootstrap_interval(np.arange(1500) % 10 < 7)
    error = 1.96 * np.sqrt(0.7 * 0.3 / 1500)
    assert (low, high) == pytest.approx((0.7 - error, 0.7 + error), abs=0.004)
    assert metrics.bootstrap_interval([1, 1], n_boot=1) == (1, 1)
    assert metrics.bootstrap_interval([1, 1, 1], weights=[0.5, 0, 0]) == (0, 1)


def test_phrases_of_one_image_widen_the_interval():
    hits = np.repeat(np.arange(50) % 2, 10)
    low, high = metrics.bootstrap_interval(hits, groups=[f"{i // 10}.jpg" for i in range(500)])
    error = 1.96 * np.sqrt(0.25 / 50)
    assert low == pytest.approx(0.5 - error, abs=0.03)
    assert high == pytest.approx(0.5 + error, abs=0.03)


def test_clusters_of_one_value_are_the_plain_bootstrap():
    hits = np.random.default_rng(0).random(200) < 0.3
    assert metrics.bootstrap_interval(hits, groups=list(range(200))) == pytest.approx(
        metrics.bootstrap_interval(hits)
    )


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=30))
def test_an_interval_lies_within_the_values(values):
    low, high = metrics.bootstrap_interval(values, n_boot=50)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_nothing_to_resample_is_an_error():
    with pytest.raises(ValueError, match="at least one"):
        metrics.bootstrap_interval([])
    with pytest.raises(ValueError, match="groups"):
        metrics.bootstrap_interval([1, 0], groups=["a"])


def test_rows_hold_counts_and_percent_per_split():
    keys = {"system": "albef", "objective": "amc", "metric": "pointing", "derived": True}
    rows = metrics.accuracy_rows(
        [1, 0, 1, 1], ["b", "a", "b", "a"], keys=keys, groups=["1", "2", "3", "4"]
    )
    assert [(row["split"], row["value"], row["n"]) for row in rows] == [
        ("b", 100.0, 2),
        ("a", 50.0, 2),
    ]
    assert all(tuple(row) == metrics.ROW_KEYS and row["derived"] is True for row in rows)
    assert (rows[1]["low"], rows[1]["high"]) == (0, 100)
    assert rows[0]["benchmark"] == rows[0]["note"] == ""


def test_rows_of_splits_have_the_weights_of_their_own_samples():
    rows = metrics.accuracy_rows(
        [1, 0, 1, 0], ["b", "b", "a", "a"], keys={}, weights=[3, 1, 1, 3], scale=1.0
    )
    assert [row["value"] for row in rows] == [0.75, 0.25]


def test_an_empty_split_is_a_row_without_a_value():
    rows = metrics.accuracy_rows([1], ["val"], keys={}, expected_splits=["val", "testA"])
    assert rows[1]["split"] == "testA" and rows[1]["n"] == 0
    assert rows[1]["value"] is rows[1]["low"] is rows[1]["high"] is None
    assert rows[1]["note"] == "no samples"


def test_rows_of_nothing_or_of_unknown_columns_are_errors():
    with pytest.raises(ValueError, match="nothing to report"):
        metrics.accuracy_rows([], [], keys={})
    with pytest.raises(ValueError, match="1 values but 0 splits"):
        metrics.accuracy_rows([1], [], keys={})
    with pytest.raises(ValueError, match="other groups"):
        metrics.accuracy_rows([1, 0], ["a", "a"], keys={}, groups=["image"])
    with pytest.raises(ValueError, match="accuracy"):
        metrics.result_row([1], keys={"accuracy": 1})


def test_mcnemar_counts_what_only_one_has_right():
    first = [True] * 3 + [False] * 7
    second = [True, True, False] + [True] * 6 + [False]
    won, lost, p = mcnemar(first, second)
    assert (won, lost) == (6, 1)
    assert p == pytest.approx(2 * (1 + 7) / 2**7)  # twice the tail of 7 fair coins, by hand
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    with pytest.raises(ValueError, match="paired"):
        mcnemar([True], [True, False])


def test_the_closest_pair_of_boxes_is_matched_first_and_each_box_once():
    truths = [(0, 0, 10, 10), (8, 0, 18, 10)]
    # The first box is closest to the second truth, so that the second box is left with the first.
    assert several.matched_boxes([(5, 0, 15, 10), (0, 0, 8, 10)], truths) == 2
    assert several.matched_boxes([(0, 0, 10, 10), (0, 0, 10, 9)], truths) == 1
    assert several.matched_boxes([(0, 0, 10, 5)], [(0, 0, 10, 10)]) == 1, "exactly one half"
    assert several.matched_boxes([(0, 0, 10, 4.9)], [(0, 0, 10, 10)]) == 0
    assert several.matched_boxes([(0, 0, 10, 5)], [(0, 0, 10, 10)], 0.6) == 0
    assert several.matched_boxes([], truths) == several.matched_boxes(truths, []) == 0
    assert several.f1_score([(0, 0, 10, 10)], truths) == pytest.approx(2 / 3)
    assert several.f1_score([(0, 0, 10, 5)], truths[:1], 0.6) == 0
    assert several.f1_score([], []) == 1 and several.f1_score([], truths) == 0
    assert several.all_found(truths, truths) and not several.all_found(truths[:1], truths)
