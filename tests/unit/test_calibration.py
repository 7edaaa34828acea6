"""Numbers made probabilities, and the threshold that parts what is there from what is not."""

import numpy as np
import pytest
from scipy.special import expit

from groundwork.metrics.calibration import (
    Platt,
    area_under_roc,
    balanced_accuracy,
    best_threshold,
    calibration_error,
    fit_platt,
    reliability,
)


def drawn(slope: float, intercept: float, count: int = 20000) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, and truths that are drawn with the probabilities of a known line."""
    random = np.random.default_rng(0)
    numbers = random.normal(3, 5, count)
    return numbers, random.random(count) < expit(slope * numbers + intercept)


def test_the_line_that_drew_the_truth_is_found_again_whatever_the_scale_of_the_numbers():
    numbers, truth = drawn(0.7, -1.5)
    found = fit_platt(numbers, truth)
    assert found.slope == pytest.approx(0.7, rel=0.05)
    assert found.intercept == pytest.approx(-1.5, rel=0.05)
    scaled = fit_platt(1e4 * numbers + 1e6, truth)
    assert scaled.slope == pytest.approx(found.slope / 1e4, rel=1e-4)
    assert scaled.probabilities(1e4 * numbers + 1e6) == pytest.approx(
        found.probabilities(numbers), abs=1e-5
    )


def test_calibrated_probabilities_say_how_often_they_are_right():
    numbers, truth = drawn(0.3, 2.0)
    before = calibration_error(reliability(expit(numbers), truth))
    after = calibration_error(reliability(fit_platt(numbers, truth).probabilities(numbers), truth))
    assert after < 0.02 < 0.1 < before


def test_numbers_that_tell_all_apart_have_a_finite_line():
    numbers, truth = np.arange(20.0), np.arange(20) >= 10
    found = fit_platt(numbers, truth)
    assert np.isfinite(found).all()
    probabilities = found.probabilities(numbers)
    assert (np.diff(probabilities) > 0).all()
    # Where the likelihood of Platt's targets, 11 of 12 and 1 of 12, has its maximum.
    targets = np.where(truth, 11 / 12, 1 / 12)
    assert (probabilities - targets).sum() == pytest.approx(0, abs=1e-5)
    assert ((probabilities - targets) * numbers).sum() == pytest.approx(0, abs=1e-4)


def test_what_tells_nothing_is_refused():
    truth = [True, True, False, False]
    with pytest.raises(ValueError, match="the less often it is right"):
        fit_platt([1, 2, 3, 4], truth)
    with pytest.raises(ValueError, match="the less often it is right"):
        fit_platt([1, 2, 1, 2], truth)
    with pytest.raises(ValueError, match="all numbers are the same"):
        fit_platt([1, 1, 1, 1], truth)
    with pytest.raises(ValueError, match="true and false ones are needed"):
        fit_platt([1, 2], [True, True])
    with pytest.raises(ValueError, match="a number is not finite"):
        fit_platt([1, 2, 3, np.nan], truth)
    with pytest.raises(ValueError, match="numbers but"):
        area_under_roc([1, 2, 3], truth)


def test_the_area_under_the_curve_counts_pairs_in_the_right_order_and_half_of_the_ties():
    assert area_under_roc([1, 2, 3, 4], [False, False, True, True]) == 1
    # Of 4 pairs (3, 1), (3, 2), (2, 1) are in order and (2, 2) is a tie.
    assert area_under_roc([1, 2, 2, 3], [False, False, True, True]) == pytest.approx(3.5 / 4)
    assert area_under_roc([5, 5, 5], [False, True, True]) == 0.5
    assert area_under_roc([1, 2, 3, 4], [0, 0, 1, 1]) == 1, "numbers for truths"


def test_the_threshold_is_the_best_of_all_and_lies_between_two_probabilities():
    random = np.random.default_rng(1)
    for _ in range(20):
        values = random.integers(0, 12, 30) / 12
        truth = np.r_[True, False, random.random(28) < values[2:]]
        found = best_threshold(values, truth)
        every = [balanced_accuracy(values, truth, one) for one in np.linspace(0, 1.01, 500)]
        assert balanced_accuracy(values, truth, found) == pytest.approx(max(every))
        assert not np.isclose(values, found).any()
    assert best_threshold([0.1, 0.2, 0.7, 0.9], [False, False, True, True]) == pytest.approx(0.45)
    with pytest.raises(ValueError, match="no threshold parts them"):
        best_threshold([0.5, 0.5], [True, False])


def test_kinds_count_alike_however_many_there_are():
    truth = [True] * 8 + [False] * 2
    assert balanced_accuracy([0.9] * 10, truth, 0.5) == 0.5
    assert balanced_accuracy([0.9] * 8 + [0.1, 0.9], truth, 0.5) == 0.75


def test_the_line_through_the_origin_is_the_sigmoid():
    assert Platt(1.0, 0.0).probabilities([0.0, 100.0]) == pytest.approx([0.5, 1.0])


def test_calibration_is_the_distance_of_confidence_and_accuracy():
    bins = reliability([0.1, 0.1, 0.95, 1.0, 0.5], [False, True, True, True, False])
    assert [(one.low, one.high, one.n, one.accuracy) for one in bins] == [
        (0.1, 0.2, 2, 0.5),
        (0.5, 0.6, 1, 0),
        (0.9, 1.0, 2, 1),
    ]
    expected = (2 * 0.4 + 1 * 0.5 + 2 * 0.025) / 5
    assert calibration_error(bins) == pytest.approx(expected)
    assert calibration_error([]) == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reliability([1.2], [True])
    with pytest.raises(ValueError, match="answers"):
        reliability([0.2, 0.3], [True])
