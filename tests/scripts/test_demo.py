"""What stands behind the page of demo.py, without Gradio and a browser: limits, messages, HTML."""

import html
import importlib.util
import pickle
import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import demo as script
from groundwork import Grounder
from groundwork.experiments.demo_load import place_of, read_answers
from groundwork.geometry import Grounding
from groundwork.jobs import demo_page
from groundwork.jobs.demo import parse_args
from groundwork.jobs.demo_desk import Album, Desk, Limits
from groundwork.jobs.demo_examples import write_examples
from groundwork.jobs.systems import SHIPPED, System
from groundwork.report.answers import draw_layer, page_html, page_of
from groundwork.report.overlays import Answer
from tests.helpers.script_runs import error_of

NAMES = ["first", "second"]
LIMITS = Limits(max_upload_mb=0.5, max_megapixels=0.5, max_phrases=3, max_letters=40)


@pytest.fixture(scope="module")
def grounder() -> Grounder:
    return Grounder.load(SHIPPED, device="cpu")


@pytest.fixture(scope="module")
def desk(grounder) -> Desk:
    return Desk([System(name, name, grounder) for name in NAMES], LIMITS)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    return write_examples(tmp_path_factory.mktemp("examples") / "scenes")


def told(reply: str) -> str:
    """The message of a reply that is one."""
    found = re.fullmatch(r'<div class="gw-message">(.*)</div>', reply)
    assert found, reply
    return html.unescape(found[1])


def grounding(phrase: str = "the dog", **fields) -> Grounding:
    mask = np.zeros((40, 60), bool)
    mask[10:20, 30:50] = True
    values = {"point": (39.5, 14.5), "boxes": np.array([[30.0, 10, 50, 20]]), "size": (40, 60),
              "scores": np.ones(1), "mask": mask, "heatmap": None, **fields}  # fmt: skip
    return Grounding(phrase, **values)


def drawn(*found: Grounding) -> str:
    image = np.full((40, 60, 3), 128, np.uint8)
    answers = [Answer(f"system {n}", [one]) for n, one in enumerate(found)]
    page = page_of(image, ["The dog"], answers)
    return page_html(page, "a/{n}", "told")


def test_a_reply_says_what_the_grounder_says(desk, grounder, examples):
    for example in examples[:2]:
        phrases = example.phrases[:3]
        reply = desk.reply(example.path, "\n".join(phrases), ["second"])
        assert "second 0." in reply and "first" not in reply
        expected = grounder.ground(example.path, list(phrases))
        assert read_answers(reply) == [(one.phrase, place_of(one)) for one in expected]
        assert any(one.is_there for one in expected)
        assert re.findall('gw-phrase">(.*?)<', reply) == list(phrases)


def test_systems_stand_side_by_side_in_the_order_in_which_they_were_chosen(desk, examples):
    reply = desk.reply(examples[0].path, "the blue ring\nthe star", ["second", "first"])
    assert re.findall('gw-system">(.*?)<', reply) == ["second", "first"] * 2
    assert "gw-several" in reply and reply.count("<section") == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "Type what to look for, one phrase per line"),
        (" \n\t\n", "Type what to look for"),
        ("a\nb\nc\nd", "4 phrases are more than the 3"),
        ("x" * 41, "A phrase of 41 letters is longer than the 40"),
        ("the ring\n!!!", "phrase '!!!' has no word; say what is looked for"),
        ("\u200b\u200d", "has no word"),
    ],
)
def test_phrases_that_cannot_be_answered_are_explained(desk, examples, text, expected):
    assert expected in told(desk.reply(examples[0].path, text, NAMES))


def test_a_phrase_that_comes_twice_is_answered_once(desk, examples):
    reply = desk.reply(examples[0].path, "the ring\n the ring \n\nthe star", ["first"])
    assert re.findall('gw-phrase">(.*?)<', reply) == ["the ring", "the star"]


def test_images_that_cannot_be_answered_are_explained(desk, tmp_path):
    def about(path):
        return told(desk.reply(path, "the ring", ["first"]))

    assert "Choose an image first" in about(None)
    assert "not kept any more" in about(tmp_path / "gone.png")
    (tmp_path / "text.png").write_bytes(b"no image")
    (tmp_path / "program.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    (tmp_path / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    for name in ("text.png", "program.eps", "drawing.svg"):
        assert "cannot be read as an image; JPEG, PNG" in about(tmp_path / name)
    noise = np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "heavy.png")
    assert "0.8 MB is larger than the 0.5 MB" in about(tmp_path / "heavy.png")
    # Bombs: small files of zeros, of which nothing is decoded.
    for side, expected in ((8_000, "64.0 million"), (20_000, "so many")):
        Image.new("1", (side, side)).save(tmp_path / "bomb.png")
        start = time.perf_counter()
        message = about(tmp_path / "bomb.png")
        assert f"An image of {expected} pixels is larger than the 0.5 million" in message
        assert time.perf_counter() - start < 1
    Image.fromarray(noise[:200]).save(tmp_path / "whole.png")
    cut = tmp_path / "cut.png"
    cut.write_bytes((tmp_path / "whole.png").read_bytes()[:40_000])
    message = about(cut)
    assert "This image is damaged" in message and str(tmp_path) not in message


def test_checkpoints_that_are_not_there_are_no_choice(desk, examples):
    for chosen in ([], ["other"], ["first", "../../etc"]):
        message = told(desk.reply(examples[0].path, "the ring", chosen))
        assert message == "Choose at least one of the checkpoints."


def test_a_question_ends_when_its_time_is_over(grounder, examples):
    slow = Desk([System("a", "a", grounder)], Limits(max_seconds=1e-9))
    message = told(slow.reply(examples[0].path, "the ring", ["a"]))
    assert "longer than the 1e-09 seconds" in message


@pytest.mark.parametrize("phrase", ['<img src=x onerror="alert(1)">', "a & b", "</h3><script>"])
def test_phrases_are_shown_as_they_were_typed(desk, examples, phrase):
    reply = desk.reply(examples[0].path, phrase, NAMES)
    assert html.escape(phrase) in reply and phrase not in reply
    assert set(re.findall(r"<(\w+)", reply)) <= {"div", "section", "h3", "figure", "img", "b",
                                                 "figcaption", "span", "button"}  # fmt: skip
    assert phrase not in desk.reply(None, phrase, NAMES)
    read = re.findall("read as “(.*?)”", reply)
    assert len(read) == (0 if "&" in phrase else 2)
    assert "\n" not in reply  # a blank line would begin Markdown


def test_own_boxes_are_solid_and_derived_ones_dashed_with_their_point():
    heat = np.eye(4, dtype=np.float32)
    derived = drawn(grounding(heatmap=heat, derived=frozenset({"box", "mask"})))
    assert "gw-box gw-derived" in derived and "gw-point" in derived
    assert "left:50.000%;top:25.000%;width:33.333%;height:25.000%" in derived
    own = drawn(grounding(derived=frozenset({"point", "mask"})))
    assert 'class="gw-box"' in own and "gw-point" not in own and "gw-button" not in own
    assert 'src="a/0"' in own and 'src="a/1"' not in own


def test_masks_and_heat_maps_are_layers_to_choose_from():
    found = grounding(heatmap=np.eye(4, dtype=np.float32))
    text = drawn(found, found)
    buttons = re.findall('class="gw-button(| gw-on)" value="(.*?)">(.*?)<', text)
    assert buttons == [(" gw-on", "a/1", "mask"), ("", "a/2", "heat map"),
                       (" gw-on", "a/3", "mask"), ("", "a/4", "heat map")]  # fmt: skip
    image = np.full((40, 60, 3), 128, np.uint8)
    page = page_of(image, ["the dog"], [Answer("a", [found])])
    layers = [draw_layer(page.shown, number) for number in range(3)]
    assert len(set(layers)) == 3 and all(one[:2] == b"\xff\xd8" for one in layers)
    with pytest.raises(LookupError):
        draw_layer(page.shown, 3)


def test_the_map_of_every_word_is_a_layer_with_its_share_of_the_heat(grounder, examples):
    (found,) = grounder.ground(examples[0].path, "the blue ring", words=True)
    texts = re.findall('value="a/(.)">(.*?)<', drawn(found))
    assert [text for _, text in texts][0] == "heat map"
    words, shares = zip(*(text.split() for _, text in texts[1:]), strict=True)
    assert words == ("[CLS]", "the", "blue", "ring")
    assert sum(int(share.rstrip("%")) for share in shares) == pytest.approx(100, abs=2)
    page = page_of(np.full((*found.size, 3), 128, np.uint8), ["a"], [Answer("a", [found])])
    assert len({draw_layer(page.shown, number) for number in range(6)}) == 6


def test_what_is_not_there_is_said_and_has_no_box():
    for absent in (grounding(present=0.2), grounding(boxes=np.zeros((0, 4)), scores=np.zeros(0))):
        text = drawn(absent)
        assert "gw-absent" in text and "gw-box" not in text and "point (" not in text
    assert "not there, present 20%" in drawn(grounding(present=0.2))
    # Where it was looked for can still be seen.
    text = drawn(grounding(present=0.2, heatmap=np.eye(4, dtype=np.float32)))
    assert re.findall('value="(.*?)">(.*?)<', text) == [("a/0", "not there"), ("a/1", "heat map")]
    assert "present 80%" in drawn(grounding(present=0.8))


def test_the_oldest_answers_give_way():
    image = np.zeros((512, 512, 3), np.uint8)
    answer = Answer("a", [grounding(size=(512, 512), mask=None)])
    shown = [page_of(image, ["the dog"], [answer]).shown for _ in range(3)]
    album = Album(most=2 * shown[0].size)
    names = [album.add(one) for one in shown[:2]]
    album.layer(names[0], 0)  # looked at, hence not the oldest
    names.append(album.add(shown[2]))
    assert len(set(names)) == 3 and min(map(len, names)) > 20
    assert album.layer(names[0], 0) and album.layer(names[2], 0)
    for gone in (names[1], "guessed"):
        with pytest.raises(LookupError):
            album.layer(gone, 0)


def test_what_is_kept_of_a_large_image_is_as_much_as_is_counted():
    size = (3000, 4000)
    masks = [np.zeros(size, bool) for _ in range(3)]
    found = [grounding(size=size, mask=mask) for mask in masks]
    shown = page_of(np.zeros((*size, 3), np.uint8), ["a", "b", "c"], [Answer("a", found)]).shown
    assert len(pickle.dumps(shown)) == pytest.approx(shown.size, rel=0.01)
    assert shown.size < masks[0].nbytes / 5


def test_examples_are_scenes_whose_phrases_are_within_the_limits(examples):
    assert len({example.path.read_bytes() for example in examples}) == len(examples) == 6
    for example in examples:
        assert 3 <= len(example.phrases) <= Limits().max_phrases
        assert len(set(example.phrases)) == len(example.phrases)


def test_every_limit_is_a_flag_and_above_zero():
    args = parse_args(["--max-upload-mb", "2.5", "--at-once", "3"], "")
    assert (args.max_upload_mb, args.at_once, args.host) == (2.5, 3, "127.0.0.1")
    message = error_of(lambda: script.main(["--max-phrases", "0"]))
    assert "--max-phrases is to be above 0" in message


def test_without_gradio_one_sentence_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    message = error_of(lambda: script.main([]))
    assert "Gradio, which is not installed; run make demo" in message


def test_a_port_that_is_taken_is_said():
    with demo_page.listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} of 127.0.0.1 cannot be had"):
            demo_page.listening("127.0.0.1", port)


def test_the_style_knows_every_class_of_an_answer():
    style = Path(demo_page.__file__).with_name("demo_page.css").read_text(encoding="utf-8")
    heat = np.eye(4, dtype=np.float32)
    text = drawn(grounding(heatmap=heat), grounding(present=0.1)) + drawn(
        grounding(heatmap=heat, derived=frozenset({"box", "mask"}))
    )
    used = {name for names in re.findall('class="(.*?)"', text) for name in names.split()}
    assert {name for name in used if f".{name}" not in style} <= {"gw-plain"}
