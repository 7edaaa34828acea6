"""Scores survive on disk, and the report shows what was computed."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from groundwork import metrics
from groundwork.geometry import resize_mask
from groundwork.models.common.heatmap import enlarge
from groundwork.report import pages, prediction_files, predictions, results, sheet
from groundwork.report.__main__ import main as report_of
from groundwork.report.predictions import Prediction, Run
from tests.helpers.masks import boxes_to_mask

SIZE = (60, 80)
SQUARE, OTHER = (10.5, 10.0, 30.0, 30.0), (50.0, 30.0, 70.0, 50.0)


def prediction(number: int, **changes) -> Prediction:
    values = {
        "id": f"{number}",
        "image": f"{number // 2}.png",
        "split": "val" if number < 6 else "test",
        "phrase": f"the square № {number}\u2028é",
        "size": SIZE,
        "point": (20, 15) if number % 3 else (60, 40),
        "boxes": (SQUARE,),
        "score": 0.1 * number,
        "box": (10.0, 10.0, 29.0, 31.0),
        "proposal": OTHER if number % 4 else None,
        "proposal_index": number % 4 or -1,
        "paraphrase": "the box",
        "paraphrase_point": (21, 16),
        "correlation": 0.5,
        "objects": (SQUARE, OTHER),
        "heatmap": np.random.default_rng(number).random((4, 5)) * 1e-7,
    }
    return Prediction(**{**values, **changes})


@pytest.fixture
def run(tmp_path) -> Run:
    for number in range(6):
        image = Image.new("RGB", SIZE[::-1], (90, 120, 90))
        ImageDraw.Draw(image).rectangle(SQUARE, fill=(200, 40, 40))
        image.save(tmp_path / f"{number}.png")
    return Run(
        system="albef",
        objective="amc",
        checkpoint="runs/a/checkpoint_01.pth",
        benchmark="embedded/refcoco+",
        derived=("box",),
        splits=("val", "test"),
        image_root=str(tmp_path),
    )


@pytest.fixture
def evaluated() -> list[Prediction]:
    return [prediction(number) for number in range(12)]


def value(rows: list, metric: str, split: str, system: str = "albef") -> float | None:
    found = [
        row["value"]
        for row in rows
        if (row["metric"], row["split"], row["system"]) == (metric, split, system)
    ]
    assert len(found) == 1
    return found[0]


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


def masks_of(*boxes) -> list[str]:
    return [predictions.runs_of(boxes_to_mask([box], SIZE)) for box in boxes]


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


def draw(path, run, items, *, hits=9, misses=9, **how):
    """An image sheet of some of the predictions."""
    return sheet.draw_sheet(path, run, sheet.drawn(run, items, hits=hits, misses=misses), **how)


def written(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def test_boxes_and_masks_are_drawn_and_judged_where_a_system_gives_them(run, tmp_path):
    (mask,) = masks_of((0, 0, 20, 20))
    boxes = dataclasses.replace(run, derived=("point",))
    shown = [prediction(0, heatmap=None, mask=mask), prediction(1, heatmap=None, box=OTHER)]
    path = draw(tmp_path / "boxes.png", boxes, shown)
    points = draw(tmp_path / "points.png", run, shown)
    assert path.read_bytes() != points.read_bytes()
    assert predictions.correct(shown[0], boxes=True)
    assert not predictions.correct(shown[0], boxes=False)


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


def test_published_numbers_stand_beside_real_benchmarks_only(run, evaluated):
    published = {}
    for objective in ("itc_itm_mlm", "amc", "selfeq", "amc,selfeq"):
        for benchmark in ("flickr30k", "embedded/flickr30k"):
            changed = dataclasses.replace(run, objective=objective, benchmark=benchmark)
            rows = results.score_rows(changed, evaluated) + results.chance_rows(changed, evaluated)
            published[objective, benchmark] = [
                pages.published_value(row) for row in rows if pages.published_value(row)
            ]
    assert published["amc", "flickr30k"] == ["86.49"]
    assert published["selfeq", "flickr30k"] == ["84.07"]
    assert published["itc_itm_mlm", "flickr30k"] == ["79.38"]
    assert sum(map(len, published.values())) == 3


def test_tables_show_chance_first_and_mark_what_is_derived(run, evaluated):
    rows = results.score_rows(run, evaluated) + results.chance_rows(run, evaluated)
    tables = pages.tables(rows)
    pointing = tables["embedded/refcoco+: pointing"]
    assert [line["system"] for line in pointing] == ["centre", "random", "albef"] * 2
    assert pointing[2]["value"] == "66.67" and pointing[2]["checkpoint"] == "a/checkpoint_01.pth"
    assert "published" not in pointing[0]
    assert tables["embedded/refcoco+: Acc@0.5"][0]["note"] == "derived"
    assert tables["embedded/refcoco+: map correlation"][0]["value"] == "0.500"


def test_the_report_holds_the_computed_numbers_and_the_images(run, evaluated, tmp_path):
    rows = results.score_rows(run, evaluated)
    folder = tmp_path / "report"
    samples = [pages.Samples.of(run, evaluated), pages.Samples.of(run, evaluated[:1])]
    page = pages.write_report(folder, rows, [*samples, pages.Samples.of(run, [])], title="A < B")
    assert json.loads((folder / "results.json").read_text()) == rows
    text, markup = (folder / "results.md").read_text(), page.read_text()
    for number in ("66.67", "0.500"):
        assert number in text and number in markup
    assert "A &lt; B" in markup and "src=" in markup and "http" not in markup
    sheets = sorted(folder.glob("sheet_*.png"))
    assert [path.stem[-2:] for path in sheets] == ["o+", "_2"]
    embedded = re.findall(r"base64,([^\"]+)", markup)
    assert [base64.b64decode(data) for data in embedded] == [path.read_bytes() for path in sheets]


def test_a_page_of_many_sheets_stays_small_and_names_each_checkpoint(
    run, evaluated, tmp_path, monkeypatch
):
    once = draw(tmp_path / "once.png", run, evaluated).read_bytes()
    monkeypatch.setattr(pages, "draw_sheet", lambda path, *_, **__: written(path, once))
    files = [f"checkpoint_{number:02d}.pth" for number in range(30)]
    samples = []
    for name in files:
        about = dataclasses.replace(run, checkpoint=name)
        one = pages.Samples.of(about, evaluated * 40, each=3)
        assert sum(len(group.shown) for group in one.groups) == 6, "the others are let go"
        assert f"of {len(evaluated) * 40}, 3 drawn" in one.groups[0].heading
        assert sheet._title(about).endswith(f", {name}")
        samples.append(one)
    page = pages.write_report(tmp_path / "report", [], samples)
    assert page.read_text().count("data:image/jpeg;base64,") == len(files)
    assert page.stat().st_size < 12e6


def test_a_report_is_made_from_saved_predictions_alone(run, evaluated, tmp_path, capsys):
    prediction_files.write_predictions(tmp_path / "runs", run, evaluated)
    report_of([str(tmp_path / "runs"), "--out", str(tmp_path / "report")])
    assert "66.67" in capsys.readouterr().out
    assert (tmp_path / "report" / "index.html").is_file()


def test_heat_maps_are_scored_where_that_is_asked_for(run, evaluated, tmp_path, capsys):
    heat = np.zeros((6, 8), dtype=np.float32)
    heat[1:3, 1:3] = 1  # the square's pixels, 10 to 30
    maps = [dataclasses.replace(one, heatmap=heat) for one in evaluated]
    prediction_files.write_predictions(tmp_path / "runs", run, maps)
    assert "map energy" not in {row["metric"] for row in report_of([str(tmp_path / "runs")])}
    rows = report_of([str(tmp_path / "runs"), "--maps"])
    assert "shared maxima" in capsys.readouterr().out
    assert value(rows, "shared maxima", "val") == 100
    assert value(rows, "map energy", "val") > 70
    large = enlarge(torch.from_numpy(heat)[None], SIZE)[0].numpy()
    for name, score in (("half", metrics.map_iou), ("best", metrics.best_map_iou)):
        expected = 100 * score(large, SQUARE)
        assert value(rows, f"map IoU ({name})", "val") == pytest.approx(expected, abs=0.5)
    assert value(rows, "pointing (expected)", "val") == 100, "all four cells are inside"
    assert value(rows, "pointing", "val") < 100
    assert evaluated[0].map_scores is not None
    assert dataclasses.replace(evaluated[0], heatmap=None).map_scores is None


def test_expressions_that_mean_nothing_come_back_from_their_file(run, tmp_path):
    proposals = {"proposal": None, "proposal_index": None}
    nothing = prediction(1, boxes=(), several=True, box=None, score=None, **proposals)
    one = prediction(2, several=True, found=(SQUARE,), **proposals)
    path = prediction_files.write_predictions(tmp_path / "several", run, [nothing, one])
    assert prediction_files.read_predictions(path)[1] == [nothing, one]
    assert draw(tmp_path / "a.png", run, [nothing, one]).is_file()


def test_sheets_show_seeded_hits_and_misses(run, evaluated, tmp_path):
    drawn = [sheet.choose(evaluated, 5, seed) for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2] and len(drawn[0]) == 5
    assert sheet.choose(evaluated[:2], 5, 0) == evaluated[:2]
    first = draw(tmp_path / "a.png", run, evaluated, hits=2, misses=1, columns=2)
    with Image.open(first) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    assert {(26, 152, 80), (215, 48, 39)} <= colours, "green for hits and red for misses"


def test_sheets_without_misses_heat_maps_or_short_phrases_are_drawn(run, tmp_path):
    items = [prediction(1, heatmap=None, phrase="word " * 99), prediction(2, phrase="")]
    path = draw(tmp_path / "a.png", run, items)
    with Image.open(path) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
        assert image.width == 1600
    assert (26, 152, 80) in colours


def test_dollar_signs_in_phrases_are_no_formulas(run, tmp_path):
    items = [prediction(1, phrase=r"a $\frac$ sign")]
    assert draw(tmp_path / "a.png", run, items).is_file()


def test_sheets_name_what_they_lack(run, evaluated, tmp_path):
    with pytest.raises(ValueError, match="no predictions"):
        draw(tmp_path / "a.png", run, [])
    with pytest.raises(FileNotFoundError, match=r"0\.png.*image_root"):
        draw(tmp_path / "a.png", run, evaluated, image_root=tmp_path / "absent")


def test_a_cold_map_leaves_the_image_as_it_is():
    image = np.full((10, 12, 3), 77, dtype=np.uint8)
    assert sheet.overlay(image, np.zeros((3, 4))) is image
    heat = np.zeros((3, 4))
    heat[2, 3] = 1e-9
    changed = sheet.overlay(image, heat)
    assert changed.shape == image.shape and changed[-1, -1, 0] > changed[0, 0, 0]


def test_sheets_show_images_as_the_model_saw_them(run, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # shown a quarter turn clockwise
    file = tmp_path / "turned.jpg"
    Image.fromarray(noise).save(file, exif=exif)
    file.write_bytes(file.read_bytes()[:-500])  # and truncated
    for opener, size in (("pillow", (60, 80)), ("opencv", (80, 60))):
        seen = dataclasses.replace(run, opener=opener, image_root=str(tmp_path))
        one = prediction(0, image="turned.jpg", size=size)
        assert draw(tmp_path / f"{opener}.png", seen, [one]).is_file()
