"""The page of demo.py: a server that is really started, and a browser that really looks at it."""

import base64
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from groundwork import Grounder
from groundwork.experiments import demo_load, demo_server
from groundwork.experiments.demo_load import place_of
from groundwork.jobs.demo_examples import write_examples
from groundwork.jobs.systems import SHIPPED
from groundwork.report.answers import ABSENT
from tests.helpers.own_checkpoints import write_checkpoint

pytest.importorskip("gradio", reason="Gradio is not installed; make test-demo installs it")
BASE = SHIPPED.with_name("quickstart_base.pth")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PHRASES = ["the blue ring", "the purple square"]


@pytest.fixture(scope="module")
def checkpoints(workplace, tmp_path_factory) -> dict[str, Path]:
    """The one that ships, the one that it was trained from, and a system with boxes and masks."""
    folder = tmp_path_factory.mktemp("checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(workplace)
        alvg = write_checkpoint("alvg", folder / "alvg.pth")
    return {"quickstart_amc": SHIPPED, "quickstart_base": BASE, "alvg": alvg}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> list[Path]:
    return [one.path for one in write_examples(tmp_path_factory.mktemp("scenes") / "drawn")]


@pytest.fixture(scope="module")
def address(checkpoints, tmp_path_factory):
    folder = tmp_path_factory.mktemp("server") / "temporary"
    arguments = ("--checkpoint", *checkpoints.values(), "--max-upload-mb", "0.2")
    with demo_server.started(*arguments, folder=folder) as server:
        assert server.address.startswith("http://127.0.0.1:")
        yield server.address
    assert not list(folder.iterdir())  # what visitors handed in is gone


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed; make test-demo installs it"
    )
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as running:
        # A sandbox is not to be had in every container; the page is our own.
        opened = running.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def page(browser, address):
    """The page in a window of its own; nothing of it comes from elsewhere or breaks its rules."""
    opened = browser.new_page(viewport={"width": 1280, "height": 900})
    asked, complaints = [], []
    opened.on("request", lambda request: asked.append(request.url))
    opened.on("console", lambda said: complaints.append(said.text))
    opened.on("pageerror", lambda error: complaints.append(f"page error {error}"))
    opened.goto(address)
    opened.wait_for_selector("#gw-find")
    yield opened
    opened.close()
    away = [url for url in asked if not url.startswith((address, "data:", "blob:"))]
    assert not away and len(asked) > 5
    assert not [text for text in complaints if "Security Policy" in text or "page error" in text]


def give(page, image: Path) -> None:
    """Upload an image, in the place of the one before."""
    if page.locator("#gw-upload img").count():
        page.locator("#gw-upload [aria-label='Remove Image']").click()
        page.wait_for_selector("#gw-upload img", state="detached")
    page.locator("#gw-upload input[type=file]").set_input_files(str(image))
    page.wait_for_selector("#gw-upload img")


def find(page, phrases: str) -> None:
    """Ask, and wait until the answer is that to this question."""
    page.evaluate("document.querySelectorAll('#gw-answer .gw-told, #gw-answer .gw-message')"
                  ".forEach(one => one.remove())")  # fmt: skip
    page.locator("#gw-phrases textarea").fill(phrases)
    page.locator("#gw-find").click()
    page.wait_for_selector("#gw-answer .gw-told, #gw-answer .gw-message")


def choose(page, *names: str) -> None:
    for box in page.locator("#gw-checkpoints label").all():
        checkbox = box.locator("input")
        checkbox.set_checked(any(name in box.inner_text() for name in names))


def places(page) -> list[str]:
    """Of every phrase and system what is shown, as `place_of` says it."""
    figures = page.locator(".gw-figure").all_inner_texts()
    found = [re.findall(r"point (\(.*?\))|(not there)", text)[0] for text in figures]
    return ["".join(one) for one in found]


def said_by(grounder: Grounder, image: Path, phrases: list[str]) -> list[str]:
    return [place_of(one) for one in grounder.ground(image, phrases)]


def test_the_page_points_where_the_grounder_does_and_elsewhere_in_another_image(page, scenes):
    grounder = Grounder.load(SHIPPED, device="cpu")
    choose(page, "quickstart_amc")
    give(page, scenes[0])
    find(page, "\n".join(PHRASES))
    answer = places(page)
    assert answer == said_by(grounder, scenes[0], PHRASES) and ABSENT not in answer
    (x, y), size = grounder.ground(scenes[0], PHRASES[0])[0].point, Image.open(scenes[0]).size
    place = page.locator(".gw-point").first.get_attribute("style")
    left, top = map(float, re.findall(r"[\d.]+", place))
    expected = (100 * (x + 0.5) / size[0], 100 * (y + 0.5) / size[1])
    assert (left, top) == pytest.approx(expected, abs=1e-3)
    for other in scenes[1:3]:
        give(page, other)
        find(page, "\n".join(PHRASES))
        assert places(page) == said_by(grounder, other, PHRASES) != answer


def test_two_checkpoints_stand_side_by_side(page, scenes, checkpoints):
    choose(page, "quickstart_amc", "quickstart_base")
    give(page, scenes[0])
    find(page, PHRASES[0])
    names = page.locator(".gw-system").all_inner_texts()
    assert names == ["ALBEF (quickstart_amc)", "ALBEF (quickstart_base)"]
    expected = [
        said_by(Grounder.load(checkpoints[name], device="cpu"), scenes[0], PHRASES[:1])[0]
        for name in ("quickstart_amc", "quickstart_base")
    ]
    assert places(page) == expected and expected[0] != expected[1]
    left, right = (one.bounding_box() for one in page.locator(".gw-figure").all())
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    # The layers are images that have come.
    widths = page.eval_on_selector_all(".gw-image img", "all => all.map(one => one.naturalWidth)")
    assert len(widths) == 4 and min(widths) > 300


def test_a_click_on_a_word_shows_its_map(page, scenes):
    choose(page, "quickstart_amc")
    give(page, scenes[0])
    find(page, f"{PHRASES[0]}\nthe red triangle")
    figure, absent = page.locator(".gw-figure").all()
    layer = figure.locator(".gw-layer")
    whole = layer.get_attribute("src")
    figure.locator(".gw-button", has_text="blue").click()
    assert layer.get_attribute("src") != whole
    figure.locator(".gw-button", has_text="heat map").click()
    assert layer.get_attribute("src") == whole
    # What is not there has no mark, but where it was looked for can be seen.
    veil = absent.locator(".gw-absent")
    assert veil.is_visible() and not absent.locator(".gw-point").count()
    absent.locator(".gw-button", has_text="triangle").click()
    assert not veil.is_visible()


def test_an_example_answers_at_once(page):
    page.locator("#gw-examples button").nth(1).click()
    page.wait_for_selector(".gw-row")
    asked = page.locator("#gw-phrases textarea").input_value().splitlines()
    assert page.locator(".gw-phrase").all_inner_texts() == asked and len(asked) >= 3


def test_an_image_can_be_pasted(page, scenes):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async text => {
            const bytes = Uint8Array.from(atob(text), one => one.charCodeAt(0));
            const item = new ClipboardItem({"image/png": new Blob([bytes], {type: "image/png"})});
            await navigator.clipboard.write([item]);
        }""",
        base64.b64encode(scenes[2].read_bytes()).decode(),
    )
    page.locator("#gw-upload [aria-label='Paste from clipboard']").click()
    page.wait_for_selector("#gw-upload img")
    choose(page, "quickstart_amc")
    find(page, PHRASES[0])
    grounder = Grounder.load(SHIPPED, device="cpu")
    assert places(page) == said_by(grounder, scenes[2], PHRASES[:1])


def test_a_file_that_is_too_large_is_refused_with_a_message(page, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "heavy.png")
    page.locator("#gw-upload input[type=file]").set_input_files(str(tmp_path / "heavy.png"))
    toast = page.locator(".toast-body")
    toast.wait_for()
    assert "exceed the maximum allowed size" in toast.inner_text()
    assert not page.locator("#gw-upload img").count()


def test_what_cannot_be_answered_is_explained_on_the_page(page, scenes, tmp_path):
    def told(phrases: str) -> str:
        find(page, phrases)
        return page.locator(".gw-message").inner_text()

    assert "Choose an image first" in told("the ring")
    give(page, scenes[0])
    assert "Type what to look for, one phrase per line" in told("  \n ")
    assert "13 phrases are more than the 12" in told("\n".join(map(str, range(13))))
    choose(page)
    assert "Choose at least one" in told("the ring")
    choose(page, "quickstart_amc")
    broken = tmp_path / "broken.png"
    broken.write_bytes(scenes[0].read_bytes()[:3000])
    page.locator("#gw-upload [aria-label='Remove Image']").click()
    page.locator("#gw-upload input[type=file]").set_input_files(str(broken))
    page.wait_for_timeout(500)
    assert "This image is damaged" in told("the ring")


@pytest.mark.parametrize(
    "phrase",
    [
        "<img src=x onerror=\"document.title='taken'\"> ring",
        "</h3><script>document.title='taken'</script>",
        "**ring** $$x^2$$ [a](http://example.org) ${1+1} {{7*7}}",
    ],
)
def test_phrases_are_text_and_nothing_else(page, scenes, phrase):
    choose(page, "quickstart_amc")
    give(page, scenes[0])
    find(page, phrase)
    heading = page.locator(".gw-phrase")
    assert heading.inner_text() == phrase and not heading.locator("*").count()
    page.wait_for_timeout(300)
    assert page.title() == "Where is it?"


def test_layers_their_opacity_and_the_marks_are_the_visitors_choice(page, scenes):
    choose(page, "alvg")
    give(page, scenes[0])
    find(page, PHRASES[0])
    layer = page.locator(".gw-layer").first
    assert page.locator(".gw-button").all_inner_texts() == ["mask", "heat map"]
    mask = layer.get_attribute("src")
    page.get_by_role("button", name="heat map").click()
    assert layer.get_attribute("src") != mask
    assert "gw-on" in page.get_by_role("button", name="heat map").get_attribute("class")
    page.locator("#gw-opacity input[type=range]").fill("30")
    assert layer.evaluate("one => getComputedStyle(one).opacity") == "0.3"
    box = page.locator(".gw-box").first
    assert box.is_visible()
    page.locator("#gw-marks input").uncheck()
    assert not box.is_visible()


def test_paths_of_the_server_are_no_images(address, scenes, tmp_path):
    secret = tmp_path / "secret.png"
    shutil.copy(scenes[0], secret)
    event = demo_server.find_button(address)
    chosen = ["ALBEF (quickstart_amc)"]
    for path in (str(secret), "/etc/passwd", "http://127.0.0.1:1/a.png", "../secret.png"):
        status, said = demo_server.ask(address, event, path, "the ring", chosen)
        assert status == 400 and "choose it again" in said
    status, path = demo_server.upload(address, "../../a b<c>.png", scenes[0].read_bytes())
    assert status == 200 and "server" in path and "/../" not in path
    status, said = demo_server.ask(address, event, path, "the ring", chosen)
    assert status == 200 and "point (" in said
    for elsewhere in (secret, "/etc/passwd", Path(path).parents[2] / "temporary.log"):
        assert demo_server.request(f"{address}/gradio_api/file={elsewhere}")[0] == 404


def test_uploads_and_questions_are_limited_by_the_server_too(address):
    status, said = demo_server.upload(address, "a.png", b"x" * 300_000)
    assert status == 413 and "larger than 0.2 MB" in said
    status, said = demo_server.upload(address, "a.png", b"x" * 230_000)  # within the slack
    assert status == 413 and "maximum allowed size" in said
    event = demo_server.find_button(address)
    for text in ({"a": 1}, ["the ring"], 7):
        status, said = demo_server.ask(address, event, None, text, "nothing")
        assert status in (200, 400, 422) and said
    assert demo_server.request(f"{address}/gradio_api/info")[0] == 404
    headers = demo_server.request(address)[1]
    assert headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in headers["content-security-policy"]


def test_many_visitors_at_once_get_their_own_answers(tmp_path):
    result = demo_load.main(["--clients", "12", "--seconds", "4", "--out", str(tmp_path)])
    assert result["wrong"] == [] and result["counts"]["question: right"] > 5
    assert {text.split(":")[0] for text in result["counts"]} >= {"question", "empty", "path"}
    assert (tmp_path / "load.json").is_file()
