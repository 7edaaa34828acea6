"""An image and a phrase have one answer, through whichever door a checkpoint is asked: `Grounder`,
test.py, predict.py, the page, the exported file.
"""

import importlib.util
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import predict
from groundwork import Grounder
from groundwork.experiments import demo_server
from groundwork.geometry import Grounding, runs_to_mask
from groundwork.jobs.demo_desk import LAYERS, Desk, Limits
from groundwork.jobs.open_image import open_image
from groundwork.jobs.systems import System
from groundwork.report.answers import draw_layer, page_of
from groundwork.report.overlays import Answer
from groundwork.report.predictions import Prediction
from tests.helpers.exported_files import FORMS, checkpoint_of, exported, marked
from tests.helpers.own_checkpoints import evaluated

pytestmark = pytest.mark.usefixtures("embedded")
# What is asked -> the kind of its evaluation.
KINDS = {
    "quickstart_base.pth": "albef",
    **{
        kind: kind for kind in ("reftr", "reftr_masks", "refclip", "simrec", "alvg", "alvg_several")
    },
}
SERVED = ("quickstart_base.pth", "alvg")
# A probability of one half may fall on either side.
_PIXELS = 1e-3


class Place(NamedTuple):
    """Where a phrase is; boxes: (n, 4), the best first."""

    point: tuple[float, float]
    boxes: np.ndarray
    mask: np.ndarray | None


@dataclass(frozen=True)
class Asked:
    """A checkpoint, the images of an evaluation with what that found of their phrases; `image` and
    `phrases`: the first ones."""

    kind: str
    checkpoint: Path
    grounder: Grounder
    found: dict[Path, list[Prediction]]

    @property
    def image(self) -> Path:
        return next(iter(self.found))

    @property
    def phrases(self) -> list[str]:
        return list(dict.fromkeys(one.phrase for one in self.found[self.image]))[:4]

    def answer(self) -> list[Grounding]:
        """The `Grounder`'s."""
        return self.grounder.ground(self.image, self.phrases)


@pytest.fixture(scope="module", params=KINDS)
def asked(request, workplace, shared, tmp_path_factory) -> Asked:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        checkpoint = checkpoint_of(request.param, workplace, shared)
        run, found = evaluated(KINDS[request.param], checkpoint, tmp_path_factory.mktemp("out"))
        grounder = Grounder.load(checkpoint, device="cpu")
    images = {
        Path(run.image_root, image): list(of_image)
        for image, of_image in groupby(found, lambda one: one.image)
    }
    return Asked(request.param, checkpoint, grounder, images)


def place_of(found: Grounding) -> Place:
    """With the mask that the system gave itself."""
    return Place(found.point, found.boxes, None if "mask" in found.derived else found.mask)


def assert_same(found: Place, expected: Grounding, apart: float) -> None:
    """At most `apart` pixels of the image apart."""
    known = place_of(expected)
    assert found.point == pytest.approx(known.point, abs=apart)
    assert np.reshape(found.boxes, (-1, 4)) == pytest.approx(known.boxes, abs=apart)
    assert (found.mask is None) == (known.mask is None)
    if found.mask is not None:
        assert (found.mask != known.mask).mean() < _PIXELS


def test_an_evaluation_says_what_the_grounder_says(asked):
    assert asked.grounder.about.system == KINDS[asked.kind].split("_")[0]
    some = list(asked.found.items())[:6]
    assert any(len({one.point for one in found}) > 1 for _, found in some)
    for image, found in some:
        answers = asked.grounder.ground(image, [one.phrase for one in found])
        for one, expected in zip(found, answers, strict=True):
            assert one.size == expected.size
            boxes = [one.box] if one.box and not one.several else one.found
            mask = None if one.mask is None else runs_to_mask(one.mask, one.size)
            own = None if "mask" in expected.derived else mask
            assert_same(Place(one.point, np.array(boxes), own), expected, 0.01)
            if mask is not None:
                assert (mask != expected.mask).mean() < _PIXELS
            if one.score is not None:
                assert one.score == pytest.approx(expected.scores[0], abs=1e-3)
            if one.heatmap is not None:  # kept with 11 bits
                top = float(expected.heatmap.max())
                assert one.heatmap == pytest.approx(expected.heatmap, abs=1e-3 * top)


def predicted(asked: Asked, checkpoint: Path, out: Path) -> list[dict]:
    """The lines of predict.py about the image and the phrases."""
    argv = [asked.image, *asked.phrases, "--checkpoint", checkpoint, "--out", out]
    predict.main([*map(str, argv), "--device", "cpu"])
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


def assert_predicted(rows: Sequence[dict], asked: Asked, apart: float) -> None:
    for row, expected in zip(rows, asked.answer(), strict=True):
        mask = row["mask"] and runs_to_mask(row["mask"]["counts"], row["size"])
        assert_same(Place(row["point"], np.array(row["boxes"]), mask), expected, apart)
        assert (row["phrase"], row["there"]) == (expected.phrase, expected.is_there)


def test_predict_says_what_the_grounder_says(asked, tmp_path):
    assert_predicted(predicted(asked, asked.checkpoint, tmp_path / "out"), asked, 1e-6)


@pytest.mark.parametrize("asked", marked(KINDS), indirect=True, scope="module")
def test_an_exported_file_says_what_its_checkpoint_says(asked, workplace, shared, tmp_path):
    if asked.kind not in FORMS:
        pytest.skip("its file is that of reftr_masks, without masks")
    if FORMS[asked.kind] == ".onnx" and not importlib.util.find_spec("onnxruntime"):
        pytest.skip("onnxruntime, of the extra 'export', is not installed")
    file = exported(asked.kind, workplace, shared).file
    assert_predicted(predicted(asked, file, tmp_path / "out"), asked, 0.01)


def test_the_page_shows_what_the_grounder_says(asked):
    desk = Desk([System("a", "a", asked.grounder)], Limits())
    reply = desk.reply(asked.image, "\n".join(asked.phrases), ["a"])
    assert_shown(reply, asked, desk.album.layer)


def test_the_page_that_is_served_shows_it_too(asked, tmp_path):
    pytest.importorskip("gradio", reason="Gradio is not installed; make test-demo installs it")
    if asked.kind not in SERVED:
        pytest.skip("a server is started of two of them")
    name = f"{asked.grounder.about.title} ({asked.checkpoint.stem})"
    with demo_server.started("--checkpoint", asked.checkpoint, folder=tmp_path / "a") as server:
        event = demo_server.find_button(server.address)
        _, path = demo_server.upload(server.address, "a.jpg", asked.image.read_bytes())
        phrases = "\n".join(asked.phrases)
        status, reply = demo_server.ask(server.address, event, path, phrases, [name])
        assert status == 200

        def layer(answer: str, number: int) -> bytes:
            return demo_server.request(f"{server.address}/{LAYERS}/{answer}/{number}.jpg")[2]

        assert_shown(reply, asked, layer)


def assert_shown(reply: str, asked: Asked, layer: Callable[[str, int], bytes]) -> None:
    """Marks lie at thousandths of a percent of the image, captions say whole pixels; `layer`: name
    of an answer and number -> what is laid over the image."""
    pixels, _ = open_image(asked.image, "shown")
    height, width = pixels.shape[:2]
    sides = np.array([width, height, width, height])
    for section, expected in zip(reply.split("<section")[1:], asked.answer(), strict=True):
        x, y = expected.point
        assert (f"point ({x:.0f}, {y:.0f})" in section) == expected.is_there
        styles = re.findall(f'gw-box[^"]*" style="{";".join([r"[a-z]+:([0-9.]+)%"] * 4)}"', section)
        left_top, wide_high = np.split(np.reshape(styles, (-1, 4)).astype(float) / 100, 2, axis=1)
        boxes = np.hstack([left_top, left_top + wide_high]) * sides
        known = expected.boxes.clip(0, sides)[: len(expected.boxes) * expected.is_there]
        assert boxes == pytest.approx(known, abs=2e-5 * max(width, height))
        page = page_of(pixels, [expected.phrase], [Answer("a", [expected])])
        first = draw_layer(page.shown, int(page.rows[0][0].layers[0].drawn))
        ((name, number),) = re.findall(rf'gw-layer" [^>]*src="{LAYERS}/(.*?)/(\d+)', section)
        assert np.abs(image_of(layer(name, int(number))) - image_of(first)).mean() < 0.5


def image_of(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image, dtype=float)
