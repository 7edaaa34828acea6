"""docs/data.md: its commands exist, parse, and lead from miniature downloads to green checks."""

import importlib
import importlib.util
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundwork.tools import (
    data_parts,
    prepare_coco,
    prepare_flickr30k,
    prepare_grefcoco,
    prepare_refclef,
    prepare_refcoco,
    prepare_vg,
)
from tests.helpers.miniature_data import write_everything, write_proposals

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
OWN = (ROOT / "docs" / "own_data.md").read_text(encoding="utf-8")
# These would download, or ask a language model: their arguments are parsed only.
PARSED_ONLY = ("--download", "--local", "--endpoint")


def commands(text: str) -> list[list[str]]:
    """The words of every `python -m` command in the Shell blocks of a page."""
    blocks = re.findall(r"```Shell\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.startswith("python -m ")]


COMMANDS = commands(CHAPTER)


def is_run(words: list[str]) -> bool:
    return "--dry-run" in words or not any(option in words for option in PARSED_ONLY)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory) -> Iterator[dict[str, object]]:
    """{command: what it returned or raised}; all of them run in the order of the page, below a
    folder where data/ holds miniature downloads."""
    folder, before = tmp_path_factory.mktemp("chapter"), Path.cwd()
    (folder / "configs").symlink_to(ROOT / "configs")
    write_everything(folder / "data")
    # In place of `make_proposals --download`, which is not run.
    write_proposals(folder / "data")
    os.chdir(folder)
    try:
        yield {shlex.join(words): run(words) for words in COMMANDS if is_run(words)}
    finally:
        os.chdir(before)


def run(words: list[str]) -> object:
    try:
        return importlib.import_module(words[2]).main(words[3:])
    except (Exception, SystemExit) as error:
        return error


@pytest.mark.parametrize("command", [shlex.join(words) for words in COMMANDS if is_run(words)])
def test_the_command_succeeds_on_miniature_downloads(command, outcome):
    result = outcome[command]
    if isinstance(result, BaseException):
        raise result
    assert not (isinstance(result, int) and result), f"exit code {result}"


@pytest.mark.parametrize(
    "words", [words for words in COMMANDS if not is_run(words)], ids=shlex.join
)
def test_the_arguments_of_commands_that_need_a_network_or_a_model_parse(words):
    importlib.import_module(words[2]).parse_args(words[3:])


@pytest.mark.parametrize("words", [*COMMANDS, *commands(README)], ids=shlex.join)
def test_every_tool_and_configuration_exists(words):
    assert importlib.util.find_spec(words[2])
    for word in words[3:]:
        if word.startswith("configs/"):
            assert (ROOT / word).is_file()


def test_every_preparation_and_every_list_has_its_check_in_the_chapters():
    used = {words[2] for words in (*COMMANDS, *commands(OWN))}
    assert {f"tools.{path.stem}" for path in (ROOT / "tools").glob("prepare_*.py")} <= used
    # SimREC's Flickr30k list is checked by the name of the data set.
    checked = {words[3] for words in COMMANDS if words[2] == "tools.check_data"}
    assert {one.data_set for one in data_parts.LISTS} <= checked
    assert {one.system for one in data_parts.LISTS} - {"simrec"} <= checked


def published_counts() -> Iterator[int]:
    for chosen in (*prepare_refcoco.SETS, prepare_refclef.SET):
        yield from chosen.published.values()
    for split in prepare_coco.PUBLISHED.values():
        yield from split.values()
    for table in (prepare_flickr30k.PUBLISHED, prepare_flickr30k.PUBLISHED_SPLITS):
        yield from table.values()
    yield from prepare_grefcoco.PUBLISHED.values()
    yield from prepare_vg.PUBLISHED.values()


def test_the_chapter_states_the_counts_that_the_tools_compare_with():
    missing = [number for number in published_counts() if f"{number:,}" not in CHAPTER]
    assert not missing


TREES = {
    "reftr": {
        "annotations": "annotations",
        "annotations_resc": "annotations_resc",
        "refcoco/anns": "refcoco/anns",
        "coco/images/train2014": "refcoco/images/train2014",
        "refclef/images": "referit/images",
        "flickr30k/images": "flickr30k/f30k_images",
        "vg/images": "visualgenome",
    },
    "refclip": {
        "anns": "anns",
        "coco/images/train2014": "images/train2014",
        "refclef/images": "images/refclef",
    },
    "alvg": {
        "annotations": "annotations",
        "coco/images/train2014": "images/mscoco/train2014",
        "refclef/images": "images/saiaprtc12",
        "flickr30k/images": "images/flickr30k",
    },
}


@pytest.mark.parametrize("system", TREES)
@pytest.mark.usefixtures("outcome")
def test_the_tree_that_a_repository_prints_is_checked_as_it_is(system, tmp_path, capsys):
    data = Path.cwd() / "data"
    for ours, theirs in TREES[system].items():
        (tmp_path / theirs).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / theirs).symlink_to(data / ours)
    words = ["python", "-m", "tools.check_data", system, "--data", str(tmp_path), "--full"]
    assert run(words) == 0
    assert "not there" not in capsys.readouterr().out


@pytest.mark.usefixtures("outcome")
def test_a_list_without_its_images_is_not_green(tmp_path):
    (tmp_path / "anns").symlink_to(Path.cwd() / "data" / "anns")
    assert run(["", "", "tools.check_data", "refclip/refcoco", "--data", str(tmp_path)]) == 1


def test_what_is_not_prepared_names_the_remedy(tmp_path):
    error = run(["", "", "tools.check_data", "alvg/grefcoco", "--data", str(tmp_path)])
    assert isinstance(error, FileNotFoundError)
    assert "tools/prepare_*.py write them" in str(error)


@pytest.mark.usefixtures("outcome")
def test_masks_that_were_not_written_are_a_warning(capsys):
    assert run(["", "", "tools.check_data", "reftr/refcoco", "--data", "data"]) == 0
    assert "8 mask file missing" in capsys.readouterr().out


@pytest.mark.usefixtures("outcome")
def test_preparations_print_the_command_that_checks_what_they_wrote(capsys):
    run(["", "", "tools.prepare_grefcoco", "--raw", "data/grefcoco", "--out", "data"])
    assert "  python -m tools.check_data grefcoco --data data\n" in capsys.readouterr().out
