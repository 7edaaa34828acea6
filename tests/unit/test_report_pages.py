"""Tables, sheets and pages show what was computed."""

import base64
import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from groundwork import metrics
from groundwork.models.common.heatmap import enlarge
from groundwork.report import pages, prediction_files, predictions, results, sheet
from groundwork.report.__main__ import main as report_of
from tests.helpers.evaluated import (
    OTHER,
    SIZE,
    SQUARE,
    draw,
    masks_of,
    prediction,
    value,
)


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
    # An image of the same name in another folder is another image.
    moved = [prediction(0, image=f"elsewhere/{evaluated[0].image}")]
    with pytest.raises(FileNotFoundError, match=r"elsewhere.*image_root"):
        draw(tmp_path / "a.png", run, moved)


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
