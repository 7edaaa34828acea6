"""Pages of evaluations and comparisons: what they count, and that no text in them runs."""

import dataclasses
import html
import json
import re

import numpy as np
import pytest
from PIL import Image

import compare as door
from groundwork.benchmarks import BENCHMARKS
from groundwork.report import compare, pages, results
from groundwork.report.__main__ import main as report_of
from groundwork.report.cards import rightness
from groundwork.report.charts import line_chart, training_curves
from groundwork.report.detail import confidences, write_detail
from groundwork.report.groups import breakdown, kinds_of, length_of, size_of
from groundwork.report.latex import escaped, latex
from groundwork.report.prediction_files import write_predictions
from groundwork.report.predictions import Prediction, Run
from tests.helpers.script_runs import error_of

SIZE = (60, 80)
BOX = (10.0, 10.0, 30.0, 30.0)
NASTY = '<script>alert("1")</script> $\\alpha$ {{7*7}} & "quoted" \' =cmd'


def prediction(number: int, **changes) -> Prediction:
    """Of four in a row the first is wrong; two stand in one image."""
    values = {
        "id": f"{number}",
        "image": f"{number // 2}.png",
        "split": "testA" if number % 2 else "testB",
        "phrase": f"the red square number {number}",
        "size": SIZE,
        "point": (20, 15) if number % 4 else (60, 40),
        "boxes": (BOX,),
        "score": number / 20,
        "heatmap": np.random.default_rng(number).random((4, 5)),
    }
    return Prediction(**{**values, **changes})


@pytest.fixture
def run(tmp_path) -> Run:
    for number in range(10):
        Image.new("RGB", SIZE[::-1], (90, 120, 90)).save(tmp_path / f"{number}.png")
    return Run(
        system="ALBEF", objective="amc", checkpoint="a.pth", benchmark="refcoco+",
        derived=("box", "mask"), splits=("testA", "testB"), image_root=str(tmp_path),
    )  # fmt: skip


@pytest.fixture
def evaluated() -> list[Prediction]:
    return [prediction(number) for number in range(20)]


# --- groups, calibration, McNemar -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("phrase", "kinds"),
    [
        ("Left man", ["left, right"]),
        ("the cup left of the plate", ["left, right", "relations"]),
        ("second red bus from the right", ["left, right", "colours", "ordinals, extremes"]),
        ("dog behind the tree", ["relations"]),
        ("a bright leftover", ["none of these"]),
    ],
)
def test_the_kinds_of_words_are_whole_words(phrase, kinds):
    assert kinds_of(prediction(0, phrase=phrase)) == kinds


def test_sizes_are_shares_of_the_image_that_the_boxes_cover_together():
    assert size_of(prediction(0)) == "2 to 10 %"  # 400 of 4800 pixels
    assert size_of(prediction(0, boxes=(BOX, BOX))) == "2 to 10 %"
    assert size_of(prediction(0, boxes=((0, 0, 9, 9),))) == "under 2 %"
    assert size_of(prediction(0, boxes=((-50, 0, 20, 20),))) == "2 to 10 %", "inside the image"
    assert size_of(prediction(0, boxes=((0, 0, 24, 20),))) == "10 to 30 %", "a bound belongs above"
    assert size_of(prediction(0, boxes=((-9, -9, 99, 99),))) == "30 % and more"
    assert size_of(prediction(0, boxes=(), several=True)) == "nothing is meant"
    lengths = [length_of(prediction(0, phrase="a " * number)) for number in (1, 3, 6, 11)]
    assert lengths == ["1 or 2", "3 to 5", "6 to 9", "10 and more"]


def test_groups_hold_the_share_that_is_right(run, evaluated):
    large = [dataclasses.replace(one, boxes=((5, 5, 75, 55),)) for one in evaluated[:4]]
    sizes = breakdown(run, [*large, *evaluated[4:]])["size of the target, of the image"]
    assert [(one.name, one.n, one.value) for one in sizes] == [
        ("2 to 10 %", 16, 75.0), ("30 % and more", 4, 100.0),
    ]  # fmt: skip
    assert sizes[0].low < 75 < sizes[0].high
    (colours,) = breakdown(run, evaluated)["kinds of words"]
    assert (colours.name, colours.n) == ("colours", 20)


def test_scores_beyond_probabilities_are_taken_for_log_odds(evaluated):
    name, sure = confidences(evaluated)
    assert name == "score" and sure[5] == 0.25
    odds = [dataclasses.replace(one, score=20 * one.score - 5) for one in evaluated]
    name, sure = confidences([*odds, prediction(1, score=None)])
    assert name == "sigmoid of the score"
    assert sure[5] == pytest.approx(0.5) and np.isnan(sure[-1])


def test_answers_are_ordered_by_how_right_they_are():
    points = [(20, 20), (12, 20), (31, 20), (70, 50)]
    values = [rightness(prediction(0, point=point), boxes=False) for point in points]
    assert values[:2] == [pytest.approx(1), pytest.approx(0.2)]
    assert values[2:] == [pytest.approx(-0.01), pytest.approx(-np.hypot(40, 20) / 100)]
    assert rightness(prediction(0, box=(10, 10, 30, 20)), boxes=True) == pytest.approx(0.5)
    assert rightness(prediction(0, boxes=()), boxes=False) == -1


# --- the page -------------------------------------------------------------------------------------


def attributes(page: str) -> list[dict[str, str]]:
    """Of every card what the filter asks for."""
    cards = re.findall(r'<figure class="card[^"]*"([^>]*)>', page)
    pairs = (re.findall(r'data-(\w+)="([^"]*)"', card) for card in cards)
    return [{name: html.unescape(value) for name, value in found} for found in pairs]


def test_a_page_holds_numbers_groups_calibration_and_samples(run, evaluated, tmp_path):
    page = write_detail(tmp_path / "page.html", run, evaluated).read_text()
    rows = results.score_rows(run, evaluated)
    value = next(r for r in rows if r["metric"] == "pointing" and r["split"] == "testB")
    assert f"{value['value']:.2f} ({value['low']:.2f}–{value['high']:.2f})" in page
    published = next(
        one for one in BENCHMARKS["refcoco+"].published
        if (one.system, one.split) == ("AMC", "testB")
    )  # fmt: skip
    assert f"published {published.value:.2f}" in page
    assert "Calibration" in page and "By kinds of words" in page
    cards = attributes(page)
    assert len(cards) == 10 + 10 + 20, "best and worst show an image once"
    assert {one["verdict"] for one in cards[:5]} == {"right"}
    assert {one["verdict"] for one in cards[10:15]} == {"wrong"}
    assert cards[20]["words"] == "colours" and cards[20]["size"] == "2 to 10 %"
    assert cards[20]["text"] == evaluated[0].phrase
    # One file: nothing is fetched.
    assert (
        not re.search(r'(src|href)="(?!data:)', page)
        and "http" not in page
        and "@import" not in page
    )
    assert page.count('<image href="data:image/jpeg;base64,') == 2 * len(cards)


def test_phrases_and_names_are_text_whatever_they_hold(run, evaluated, tmp_path):
    run = dataclasses.replace(run, checkpoint=NASTY, note=NASTY)
    nasty = [dataclasses.replace(one, phrase=NASTY, split=NASTY) for one in evaluated]
    run = dataclasses.replace(run, splits=(NASTY,))
    page = write_detail(tmp_path / "page.html", run, nasty).read_text()
    assert page.count("<script>") == 1, "the filter's own"
    assert html.escape(NASTY) in page
    assert attributes(page)[0]["text"] == NASTY.lower()
    pairs = list(zip(nasty, nasty, strict=True))
    lines = compare.compare(pairs, "pointing")
    other = compare.write_comparison(tmp_path / "b.html", (run, run), pairs, "pointing", lines)
    assert other.read_text().count("<script>") == 1


def test_scores_that_never_differ_are_not_called_calibrated(run, evaluated, tmp_path):
    same = [dataclasses.replace(one, score=1.0) for one in evaluated]
    assert "Calibration" not in write_detail(tmp_path / "page.html", run, same).read_text()


def test_boxes_of_several_targets_are_judged_and_drawn(run, evaluated, tmp_path):
    run = dataclasses.replace(run, system="ALVG", derived=("point",))
    several = [
        dataclasses.replace(one, several=True, found=(BOX,) if number % 4 else ())
        for number, one in enumerate(evaluated)
    ]
    page = write_detail(tmp_path / "page.html", run, several).read_text()
    assert "all targets found and nothing else" in page
    assert page.count('class="answer" x=') > 0 and "<circle cx" not in page.split("Samples")[1]
    with pytest.raises(ValueError, match="no predictions"):
        write_detail(tmp_path / "page.html", run, [])


def test_curves_come_from_the_log_of_the_training(run, evaluated, tmp_path):
    rows = [
        {"kind": "step", "global_step": 10 * n, "lr": 0.1 / n, "loss": 2.0 / n, "loss_x": 1.0}
        for n in range(1, 5)
    ]
    rows.append({"kind": "validation", "global_step": 40, "epoch": 0, "pointing": 61.5})
    rows.append({"kind": "step", "global_step": 50, "lr": 0.1, "loss": float("nan")})
    log = tmp_path / "log.txt"
    log.write_text("".join(json.dumps(row) + "\n" for row in rows))
    losses, rate, checks = training_curves(log)
    assert losses.count("<polyline") == 2 and "loss_x" in losses and "nan" not in losses
    assert rate.count("<polyline") == 1 and "pointing" in checks
    assert "Training" in write_detail(tmp_path / "p.html", run, evaluated, log=log).read_text()
    log.write_text(json.dumps({"epoch": 0, "train_loss_mlm": "1.2"}) + "\n")
    assert training_curves(log) == [], "the released form has no steps"


def test_a_chart_puts_values_where_they_belong():
    chart = line_chart({"a <b>": [(0, 0), (5, 1), (10, 2)]}, across="x", up="y")
    (points,) = re.findall(r'points="([^"]*)"', chart)
    xs, ys = zip(*(map(float, place.split(",")) for place in points.split()), strict=True)
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    assert ys[0] - ys[1] == pytest.approx(ys[1] - ys[2], abs=0.2) and ys[0] > ys[2]
    assert "a &lt;b&gt;" in chart
    assert line_chart({"a": []}, across="x", up="y") == ""


def test_the_report_links_to_a_page_of_each_evaluation(run, evaluated, tmp_path):
    write_predictions(tmp_path / "runs", run, evaluated)
    report_of([str(tmp_path / "runs"), "--out", str(tmp_path / "out")])
    (link,) = re.findall(r'<a href="([^"]*)"', (tmp_path / "out" / "index.html").read_text())
    assert link == "1_refcoco%2B.html" and (tmp_path / "out" / "1_refcoco+.html").is_file()


def test_latex_shows_characters_as_they_are(run, evaluated, tmp_path, capsys):
    assert escaped(r"50 % of a_b & $x$ \y {z}~^#") == (
        r"50 \% of a\_b \& \$x\$ \textbackslash{}y \{z\}\textasciitilde{}\textasciicircum{}\#"
    )
    run = dataclasses.replace(run, objective="itc_itm_mlm+amc")
    rows = results.score_rows(run, evaluated)
    text = latex(rows)
    assert r"itc\_itm\_mlm+amc" in text and text.count(r"\begin{tabular}") == len(
        pages.tables(rows)
    )
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.count(" & ") == text.split(r"\begin{tabular}{")[1].index("}") - 1
            break
    write_predictions(tmp_path / "runs", run, evaluated)
    report_of([str(tmp_path / "runs"), "--format", "latex"])
    assert r"\toprule" in capsys.readouterr().out


# --- comparisons ----------------------------------------------------------------------------------


@pytest.fixture
def better(evaluated) -> list[Prediction]:
    """Right where the first is not, but for one; and one is lost."""
    point = {0: (60, 40), 1: (60, 40)}
    return [
        dataclasses.replace(one, point=point.get(number, (20, 15)))
        for number, one in enumerate(evaluated)
    ]


def test_the_difference_is_taken_pair_by_pair(evaluated, better):
    pairs = compare.paired(evaluated, better[::-1])
    assert [(a.id, b.id) for a, b in pairs] == [(one.id, one.id) for one in evaluated]
    every, first, second, *groups = compare.compare(pairs, "pointing")
    assert (every.n, every.first, every.second, every.gain) == (20, 75, 90, 15)
    assert (every.won, every.lost) == (4, 1)
    assert every.p == pytest.approx(2 * (1 + 5) / 2**5)
    assert every.low < 15 < every.high
    assert {first.name, second.name} == {"split: testA", "split: testB"}
    assert first.n + second.n == 20 and sum("kinds of words" in one.name for one in groups) == 1


def test_annotations_with_other_ids_are_paired_by_image_and_words(evaluated):
    other = [
        dataclasses.replace(one, id=f"other/{one.id}", phrase=one.phrase.upper() + "!",
                            image=f"folder/{one.image}")
        for one in evaluated
    ]  # fmt: skip
    pairs = compare.paired(evaluated, other)
    assert [b.id for _, b in pairs] == [f"other/{one.id}" for one in evaluated]
    assert compare.paired(evaluated, [prediction(0, id="x", phrase="unheard of")]) == []


def test_what_is_annotated_twice_is_counted_twice(evaluated):
    twice = [dataclasses.replace(evaluated[0]), dataclasses.replace(evaluated[0], point=(20, 15))]
    pairs = compare.paired(twice, twice)
    assert [a.point == b.point for a, b in pairs] == [True, True]


def test_systems_are_compared_by_what_both_give(run, evaluated):
    boxes = dataclasses.replace(run, derived=("point",))
    pairs = [(one, one) for one in evaluated]
    assert compare.verdict_of(run, run, pairs) == "pointing"
    assert compare.verdict_of(run, boxes, pairs) == "pointing"
    assert compare.verdict_of(boxes, boxes, pairs) == "Acc@0.5"
    several = [(one, dataclasses.replace(one, several=True)) for one in evaluated]
    assert compare.verdict_of(boxes, boxes, several) == "all found"


def test_the_script_compares_two_runs_and_shows_what_was_won(
    run, evaluated, better, tmp_path, capsys
):
    write_predictions(tmp_path / "a", run, evaluated)
    write_predictions(tmp_path / "b", dataclasses.replace(run, checkpoint="b.pth"), better)
    out = tmp_path / "out"
    lines = door.main([str(tmp_path / "a"), str(tmp_path / "b"), "--out", str(out)])
    told = capsys.readouterr().out
    assert "| all | 20 | 75.00 | 90.00 | +15.00 |" in told and "| 4 | 1 | 0.38 |" in told
    page = (out / "index.html").read_text()
    assert "4 won by B" in page and "1 lost by B" in page
    assert len(attributes(page)) == 5 and "b.pth" in page
    again = door.main([str(tmp_path / "a"), str(tmp_path / "b")])
    assert again == lines, "the seed decides"


def test_runs_that_cannot_be_compared_are_told_why(run, evaluated, tmp_path):
    write_predictions(tmp_path / "a", run, evaluated)
    other = dataclasses.replace(run, benchmark="refclef")
    write_predictions(tmp_path / "a", other, evaluated)
    message = error_of(lambda: door.main([str(tmp_path / "a"), str(tmp_path / "a")]))
    assert "holds 2 evaluations" in message and "--benchmark" in message
    strange = [prediction(n, id=f"x{n}", phrase="of another set") for n in range(3)]
    write_predictions(tmp_path / "b", other, strange)
    call = [str(tmp_path / "a"), str(tmp_path / "b"), "--benchmark", "refclef"]
    assert "no expression in common" in error_of(lambda: door.main(call))


def test_the_page_of_an_evaluation_is_not_replaced_by_a_comparison(tmp_path):
    (tmp_path / "results.json").write_text("[]")
    call = [str(tmp_path), str(tmp_path), "--out", str(tmp_path)]
    assert "holds an evaluation" in error_of(lambda: door.main(call))
