"""Rows over several training runs: their spread, and what one more run may give."""

import pytest

from groundwork.report.seeds import over_seeds, read_seed_rows, seed_table, write_seed_rows

ROW = {
    "system": "ALBEF", "objective": "AMC", "checkpoint": "b_amc.pth",
    "benchmark": "embedded/refcoco+", "split": "testA",
    "metric": "pointing", "n": 40,
    "derived": False, "note": "",
}  # fmt: skip


def runs_of(*values):
    return [[ROW | {"value": v, "low": v - 1, "high": v + 2}] for v in values]


def test_rows_of_several_runs_become_a_mean_with_its_spread(tmp_path):
    missing = [[ROW | {"value": None, "low": None, "high": None}]]
    (row,) = over_seeds([*runs_of(90.0, 92.0, 94.0), *missing])
    assert (row.mean, row.sd, row.lowest, row.highest, row.runs) == (92, 2, 90, 94, 3)
    assert (row.low, row.high, row.n) == (91, 94, 40)
    assert "| 92.0 | 2.0 | 90.0 | 94.0 | 91.0 to 94.0 | 3 |" in seed_table([row])
    write_seed_rows(tmp_path / "seeds.json", "a processor", [row])
    assert read_seed_rows(tmp_path / "seeds.json") == ("a processor", [row])


def test_one_more_run_is_expected_within_students_t_and_a_single_run_tells_nothing():
    (row,) = over_seeds(runs_of(50.0, 52.0, 54.0))
    low, high = row.expected()
    # t of 2 degrees of freedom at 99.5 % is 9.925.
    assert (high - low) / 2 == pytest.approx(9.925 * 2 * (4 / 3) ** 0.5, rel=1e-3)
    (single,) = over_seeds(runs_of(90.0))
    assert "one run" in seed_table([single])
    with pytest.raises(ValueError, match="at least two runs"):
        single.expected()


def test_runs_that_differ_by_arithmetic_alone_are_as_expected():
    # A model that was not trained: two phrases of 5,943 hit or miss by how a processor rounds.
    (row,) = over_seeds(runs_of(56.0, 56.0, 56.0))
    low, high = row.expected()
    assert low < 56.0 - 100 * 2 / 5943 and 56.0 + 100 * 2 / 5943 < high
    assert high - low < 0.25


def test_runs_that_all_gave_zero_leave_room_for_some_phrases_and_none_for_the_impossible():
    (row,) = over_seeds(runs_of(0.0, 0.0, 0.0))
    low, high = row.expected()
    assert low == 0 and 100 * 2 / 2884 < high < 0.25
    (row,) = over_seeds(runs_of(96.0, 98.0, 100.0))
    assert row.expected()[1] == 100
