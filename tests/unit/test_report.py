"""Rows hold what was computed, and survive on disk with what they were computed from."""

import dataclasses
import re

import numpy as np
import pytest

from groundwork.geometry import resize_mask
from groundwork.report import pages, prediction_files, predictions, results
from tests.helpers.evaluated import (
    SIZE,
    SQUARE,
    draw,
    masks_of,
    prediction,
    value,
)
from tests.helpers.masks import boxes_to_mask


def test_rows_hold_hand_computed_values(run, evaluated):
    rows = results.score_rows(run, evaluated) + results.chance_rows(run, evaluated)
    # Points of 0, 3, 6, 9 are on the other object; those of the paraphrases never are.
    assert value(rows, "pointing", "val") == pytest.approx(100 * 4 / 6)
    assert value(rows, "paraphrase pointing", "val") == 100
    assert value(rows, "same object", "val") == value(rows, "pointing", "val")
    assert value(rows, "both correct", "test") == pytest.approx(100 * 4 / 6)
    assert value(rows, "map correlation", "test") == 0.5
    assert value(rows, "proposal@0.5", "val") == 0
    assert value(rows, "Acc@0.5", "test") == 100
    assert value(rows, "pointing", "val", "centre") == 0
    assert value(rows, "pointing", "val", "random") == pytest.approx(100 * 19.5 * 20 / 4800)
    assert {row["metric"] for row in rows if row["derived"]} == {"Acc@0.5", "box IoU"}


def test_scores_from_the_saved_predictions_equal_those_of_the_run(run, evaluated, tmp_path):
    rows = results.score_rows(run, evaluated) + results.chance_rows(run, evaluated)
    path = prediction_files.write_predictions(tmp_path, run, evaluated)
    assert results.rescore(path) == rows
    assert results.rescore(tmp_path) == rows


def test_saved_predictions_come_back_equal_with_their_heat_maps(run, evaluated, tmp_path):
    evaluated[3] = prediction(3, heatmap=None)
    evaluated[4] = prediction(4, heatmap=np.zeros((2, 7)))
    path = prediction_files.write_predictions(tmp_path / "new", run, evaluated)
    found_run, found = prediction_files.read_predictions(path)
    assert (found_run, found) == (run, evaluated)
    assert found[3].heatmap is None and found[4].heatmap.shape == (2, 7)
    for saved, original in zip(found[5:], evaluated[5:], strict=True):
        np.testing.assert_allclose(saved.heatmap, original.heatmap, rtol=1e-3, atol=1e-10)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "heatmaps_embedded_refcoco+.npz",
        "predictions_embedded_refcoco+.jsonl",
    ]


def test_numpy_numbers_are_saved_as_numbers(run, tmp_path):
    item = prediction(1, point=tuple(np.array([20, 15])), boxes=(np.array(SQUARE),), score=None)
    path = prediction_files.write_predictions(tmp_path, run, [item])
    assert prediction_files.read_predictions(path)[1][0].boxes == (SQUARE,)


def test_stored_verdicts_are_not_trusted(run, evaluated, tmp_path):
    path = prediction_files.write_predictions(tmp_path, run, evaluated)
    rows = results.rescore(path)
    path.write_text(path.read_text().replace('"hit": true', '"hit": false'))
    assert results.rescore(path) == rows


def test_heat_maps_of_an_earlier_evaluation_do_not_stay(run, evaluated, tmp_path):
    prediction_files.write_predictions(tmp_path, run, evaluated)
    flat = [dataclasses.replace(item, heatmap=None) for item in evaluated[:5]]
    path = prediction_files.write_predictions(tmp_path, run, flat)
    assert all(item.heatmap is None for item in prediction_files.read_predictions(path)[1])


def test_broken_files_are_named_with_the_line(run, evaluated, tmp_path):
    path = prediction_files.write_predictions(tmp_path, run, evaluated)
    lines = path.read_text().rstrip("\n").split("\n")
    for number, wrong in ((1, '{"id": 1}'), (3, '{"id": "x"}'), (4, lines[3][:40]), (2, "[]")):
        path.write_text("\n".join([*lines[: number - 1], wrong, *lines[number:]]))
        with pytest.raises(ValueError, match=f"{re.escape(path.name)}:{number} "):
            prediction_files.read_predictions(path)
    path.write_text("\n".join(lines[:-1]))
    with pytest.raises(ValueError, match="12 maps"):
        prediction_files.read_predictions(path)
    path.write_text("")
    with pytest.raises(ValueError, match=":1 "):
        prediction_files.read_predictions(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        prediction_files.read_predictions(tmp_path / "nowhere.jsonl")
    with pytest.raises(FileNotFoundError, match="evaluate a checkpoint"):
        results.rescore(tmp_path / "nowhere")


def test_a_phrase_without_any_true_box_is_a_miss(run):
    plain, missed = prediction(1), prediction(2, boxes=(), proposal=(0, 0, 9, 9))
    assert not missed.hit and missed.proposal_iou == 0 and not missed.proposal_correct
    rows = results.score_rows(run, [dataclasses.replace(plain, split=missed.split), missed])
    assert {row["n"] for row in rows if row["metric"] == "pointing"} >= {2}


def test_what_cannot_be_scored_or_saved_is_refused(run, tmp_path):
    with pytest.raises(ValueError, match="prediction 1 cannot be saved"):
        prediction_files.write_predictions(tmp_path, run, [prediction(1, score=float("nan"))])
    with pytest.raises(ValueError, match="nothing to report"):
        results.score_rows(dataclasses.replace(run, splits=()), [])


def test_no_predictions_give_rows_with_n_0(run):
    rows = results.score_rows(run, [])
    assert [(row["split"], row["n"], row["value"]) for row in rows] == [
        ("val", 0, None),
        ("test", 0, None),
    ]
    assert "n/a" in pages.markdown(rows)


def test_a_missing_box_is_a_miss_where_others_have_one(run, evaluated):
    evaluated[0] = prediction(0, box=None)
    assert value(results.score_rows(run, evaluated), "Acc@0.5", "val") == pytest.approx(500 / 6)


def test_mask_rows_are_computed_from_run_lengths(run, evaluated, tmp_path):
    truth, half, other = masks_of((0, 0, 20, 20), (0, 0, 20, 10), (40, 40, 50, 50))
    found = [truth, half, other, None]
    evaluated = [
        prediction(number, mask=mask, true_mask=truth) for number, mask in enumerate(found)
    ] + evaluated[4:6]
    path = prediction_files.write_predictions(tmp_path, run, evaluated)
    rows = results.rescore(path)
    assert rows == results.score_rows(run, evaluated) + results.chance_rows(run, evaluated)
    assert value(rows, "mIoU", "val") == pytest.approx(100 * 1.5 / 4)
    assert value(rows, "oIoU", "val") == pytest.approx(100 * 600 / (400 + 400 + 500 + 400))
    assert value(rows, "Prec@0.5", "val") == 25, "an IoU of exactly 0.5 does not count"
    assert "mIoU (resized)" not in {row["metric"] for row in rows}
    assert {row["n"] for row in rows if row["metric"] == "oIoU" and row["split"] == "val"} == {4}


def test_the_released_mask_score_is_taken_at_the_networks_size(run):
    truth, half = masks_of((0, 0, 20, 20), (0, 0, 20, 10))
    small = boxes_to_mask([(0, 0, 10, 10)], (30, 40))
    one = prediction(
        0,
        mask=half,
        true_mask=truth,
        resized_mask=predictions.runs_of(small),
        resized_size=(30, 40),
    )
    rows = results.score_rows(run, [one])
    assert value(rows, "mIoU", "val") == 50 and value(rows, "mIoU (resized)", "val") == 100
    several = dataclasses.replace(one, several=True, found=(SQUARE,))
    empty = dataclasses.replace(
        several, boxes=(), true_mask=predictions.runs_of(np.zeros(SIZE, bool))
    )
    rows = results.score_rows(run, [several, empty])
    assert value(rows, "gIoU (resized)", "val") == 50, "of 1 and, where nothing is meant, 0"
    assert value(rows, "cIoU (resized)", "val") == 50, "100 pixels of 200"


def test_alvgs_protocol_counts_an_iou_of_exactly_the_threshold_in_rows_of_its_own(run):
    truth, half = masks_of((0, 0, 20, 20), (0, 0, 20, 10))
    one = prediction(
        0,
        boxes=((0.0, 0.0, 20.0, 20.0),),
        box=(0.0, 0.0, 20.0, 10.0),
        mask=half,
        true_mask=truth,
        resized_mask=half,
        resized_size=SIZE,
    )
    rows = results.score_rows(dataclasses.replace(run, inclusive=True), [one])
    assert value(rows, "Acc@0.5", "val") == 0 and value(rows, "Acc@0.5 (>=)", "val") == 100
    assert value(rows, "Prec@0.5", "val") == 0
    assert value(rows, "Prec@0.5 (resized, >=)", "val") == 100
    assert value(rows, "Prec@0.6 (resized, >=)", "val") == 0
    assert not [row for row in results.score_rows(run, [one]) if ">=" in str(row["metric"])]


def test_the_true_mask_is_resized_by_the_rule_of_the_run(run):
    stripes = np.arange(448)[:, None] % 2 == np.zeros((448, 4))
    seen = resize_mask(stripes, (640, 4), "opencv")
    one = prediction(
        0,
        size=(448, 4),
        true_mask=predictions.runs_of(stripes),
        mask=predictions.runs_of(stripes),
        resized_mask=predictions.runs_of(seen),
        resized_size=(640, 4),
    )
    alike = results.score_rows(dataclasses.replace(run, resampling="opencv"), [one])
    other = results.score_rows(run, [one])
    assert value(alike, "mIoU (resized)", "val") == 100 > value(other, "mIoU (resized)", "val")


def test_both_protocols_of_flickr30k_are_named(run, evaluated):
    two = ((10.0, 10.0, 29.0, 31.0), (50.0, 10.0, 70.0, 31.0))
    evaluated = [prediction(0, boxes=two), prediction(1, boxes=two, box=(10.0, 10.0, 70.0, 31.0))]
    rows = results.score_rows(run, evaluated)
    assert value(rows, "Acc@0.5 (any box)", "val") == 50
    assert value(rows, "Acc@0.5 (merged box)", "val") == 50
    assert "Acc@0.5" not in {row["metric"] for row in rows}
    merged = dataclasses.replace(run, merged_boxes=True)
    rows = results.score_rows(merged, [prediction(0)])
    assert value(rows, "Acc@0.5 (merged box)", "val") == 100
    alone = results.score_rows(run, [prediction(0)])
    assert value(rows, "pointing (merged box)", "val") == value(alone, "pointing", "val")
    chance = results.chance_rows(merged, [prediction(0)])
    assert {row["metric"] for row in chance} == {"pointing (merged box)"}
    # Lists with every box of a phrase, read by the configuration of others: a hit is one in any.
    rows = results.score_rows(merged, evaluated) + results.chance_rows(merged, evaluated)
    points = {row["metric"] for row in rows if row["metric"].startswith("pointing")}
    assert points == {"pointing"}


def test_new_rows_replace_those_of_the_same_key(run, evaluated, tmp_path):
    path = tmp_path / "results.json"
    old = results.score_rows(run, evaluated[:8])
    results.update_rows(path, old)
    other = results.score_rows(dataclasses.replace(run, objective="selfeq"), evaluated)
    new = results.score_rows(run, evaluated)
    merged = results.update_rows(path, other + new)
    assert results.read_rows(path) == merged
    assert len(merged) == len(new) + len(other)
    assert merged[: len(new)] == new
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_file_that_holds_no_rows_is_named(tmp_path):
    path = tmp_path / "results.json"
    for text in ("{", "[1]", '[{"system": "a"}]'):
        path.write_text(text)
        with pytest.raises(ValueError, match=r"results\.json"):
            results.read_rows(path)
    with pytest.raises(FileNotFoundError, match="run an evaluation"):
        results.read_rows(tmp_path / "absent.json")


def test_expressions_that_mean_nothing_come_back_from_their_file(run, tmp_path):
    proposals = {"proposal": None, "proposal_index": None}
    nothing = prediction(1, boxes=(), several=True, box=None, score=None, **proposals)
    one = prediction(2, several=True, found=(SQUARE,), **proposals)
    path = prediction_files.write_predictions(tmp_path / "several", run, [nothing, one])
    assert prediction_files.read_predictions(path)[1] == [nothing, one]
    assert draw(tmp_path / "a.png", run, [nothing, one]).is_file()
