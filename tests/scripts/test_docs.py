"""The documentation is true: links lead somewhere, commands parse, configurations and their keys
exist, published numbers are those of `benchmarks.py`, and code runs as it is written."""

import argparse
import functools
import importlib
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import groundwork
from groundwork.benchmarks import BENCHMARKS
from groundwork.dataset.synthetic import write_dataset
from groundwork.jobs import plugins
from groundwork.settings import load_config
from groundwork.settings.kinds import keys_of, purpose_of
from groundwork.settings.load import shipped
from groundwork.settings.parsing import dump_yaml, parse_yaml
from tests.helpers.hub import Hub
from tests.helpers.own_checkpoints import write_checkpoint
from tests.helpers.script_runs import CONFIGS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "models").rglob("README.md"),
        ROOT / "experiments" / "README.md",
        ROOT / "tests" / "README.md",
    ]
)
# The authors' own command lines: tests/scripts/test_published_commands.py.
PUBLISHED = {ROOT / "docs" / "migration.md"}
# A package that is not ours, and what is run by a shell.
NOT_OURS = ("pytest", "torch.distributed.launch")
OF_TORCHRUN = ("--nproc_per_node", "--nnodes", "--rdzv_")
# Words such as SYSTEM that stand for a name.
SHOUTED = re.compile(r"[A-Z]{4,}").search


def of_page(path: Path) -> str:
    return str(path.relative_to(ROOT))


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text_of(path), re.DOTALL)


# --- links ----------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text_of(path), re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        name = plain.replace(" ", "-")
        found.add(name if name not in found else f"{name}-1")
    return found


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_link_leads_to_a_file_and_a_heading_that_exist(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", text_of(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{of_page(page)} links {link}"
        assert not anchor or anchor in anchors(target), f"{of_page(page)} links {link}"


def test_every_page_can_be_reached_from_the_readme():
    reached, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        if page in reached:
            continue
        reached.add(page)
        names = re.findall(r"\]\(([^)\s#]+\.md)", text_of(page))
        left += [(page.parent / name).resolve() for name in names if "://" not in name]
    assert set((ROOT / "docs").rglob("*.md")) <= reached


# --- commands -------------------------------------------------------------------------------------


class Parsed(Exception):
    """The arguments of a command are legal; `arguments` holds them."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        super().__init__()
        self.arguments = arguments


def commands(path: Path) -> list[str]:
    """Command lines of Python in blocks and in the text; in the text of those without arguments
    only the name."""
    joined = [block.replace("\\\n", " ") for block in blocks(path, "Shell")]
    lines = [line.strip() for block in joined for line in block.splitlines()]
    said = re.findall(r"(?<!`)`([^`]+)`", re.sub(r"```.*?```", "", text_of(path), flags=re.DOTALL))
    lines += [" ".join(line.split()) for line in said]
    lines = [line.rpartition(" | ")[2] for line in lines]
    python = r"(?:\.venv/bin/)?python |torchrun "
    # "train|test" stands for one of them.
    return [
        line for line in lines if re.match(python, line) and not re.search(r"\.\.\.|\w\|\w", line)
    ]


COMMANDS = [
    pytest.param(line, id=f"{of_page(page)}: {line[:60]}")
    for page in PAGES
    if page not in PUBLISHED
    for line in dict.fromkeys(commands(page))
]


def job_of(words: list[str]) -> tuple[Callable[[list[str]], object] | None, list[str]]:
    """(what runs a command, its arguments); None for what is not ours."""
    words = [word for word in words[1:] if not word.startswith(OF_TORCHRUN)]
    if words[0] != "-m":
        path = ROOT / words[0]
        assert path.is_file(), words[0]
        return importlib.import_module(words[0].removesuffix(".py").replace("/", ".")).main, words[
            1:
        ]
    name = words[1]
    if name in NOT_OURS:
        return None, []
    outside = name.split(".")[0] in ("groundwork", "tests")
    inside = importlib.import_module(name if outside else f"groundwork.{name}")
    if hasattr(inside, "__path__"):
        inside = importlib.import_module(f"{inside.__name__}.__main__")
    return inside.main, words[2:]


def arguments_of(command: str, monkeypatch) -> argparse.Namespace | None:
    main, words = job_of(shlex.split(command, comments=True))
    if main is None or not words:
        return None
    nested = words[0] in ("train", "test", "pseudo_label", "predict")
    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def parse_only(parser, args=None, namespace=None, parse=parse):
            found = parse(parser, args, namespace)
            if nested and hasattr(found, "job"):
                return found
            raise Parsed(found)

        monkeypatch.setattr(argparse.ArgumentParser, name, parse_only)
    with pytest.raises(Parsed) as caught:
        main(words)
    return caught.value.arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_parses_and_its_settings_exist(command, monkeypatch):
    found = arguments_of(command, monkeypatch)
    configs = getattr(found, "config", None) or []
    for name in [configs] if isinstance(configs, str | Path) else configs:
        file = shipped(name)
        ours = str(name).startswith("configs/") and "*" not in str(name) and not SHOUTED(str(name))
        assert file is not None or not ours, f"{name} does not exist"
        if file is None or file.parent.name == "detector" or file.stem == "detector":
            continue
        overrides = [text for text in getattr(found, "set", []) if "=" in text]
        load_config(file, overrides, purpose=purpose_of(keys_of(file)))


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_configuration_that_is_named_exists(page):
    if page in PUBLISHED:
        return
    for name in re.findall(r"configs/[\w+/*.{},-]*\.yaml", text_of(page)):
        if SHOUTED(name):
            continue
        options = re.search(r"\{([^}]*)\}", name)
        parts = options[1].split(",") if options else [""]
        for part in parts:
            pattern = name if options is None else name.replace(options[0], part)
            assert list(ROOT.glob(pattern)), f"{of_page(page)}: {pattern}"


@pytest.mark.parametrize("page", PAGES, ids=of_page)
def test_every_target_of_make_exists(page):
    targets = set(re.findall(r"^([\w.-]+):", text_of(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([\w.-]+)", text_of(page), re.MULTILINE)) <= targets


# --- numbers --------------------------------------------------------------------------------------


def test_published_numbers_are_those_that_results_are_compared_with():
    page = text_of(ROOT / "docs" / "reproduce.md")
    for row in BENCHMARKS.values():
        for known in row.published:
            value = f"{known.value:.2f}"
            assert value in page, f"{known.system} {row.name} {known.split} {known.metric}: {value}"


NUMBERS = r"(?<![\d.])\d{2}\.\d{1,2}(?![\d.])"


@pytest.mark.parametrize("page", sorted((ROOT / "docs/systems").glob("*.md")), ids=of_page)
def test_a_system_page_states_no_number_that_stands_nowhere_else(page):
    """Published ones are in benchmarks.py or in the heads of the recipes, ours in the results."""
    known = {f"{one.value:.2f}" for row in BENCHMARKS.values() for one in row.published}
    for path in CONFIGS.rglob("*.yaml"):
        known |= set(re.findall(NUMBERS, text_of(path)))
    sources = (ROOT / "docs/results.md", ROOT / "models/alvg/README.md")
    known |= {number for path in sources for number in re.findall(NUMBERS, text_of(path))}
    stated = set(re.findall(NUMBERS, re.sub(r"\(https?:[^)]*\)|arXiv [\d.]+", "", text_of(page))))
    assert stated <= known, stated - known


# --- code -----------------------------------------------------------------------------------------


def python_of(page: str) -> str:
    return "\n".join(blocks(ROOT / "docs" / page, "python"))


def test_the_code_of_use_runs_as_it_is_written(embedded, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    write_checkpoint("albef", tmp_path / "checkpoint.pth")
    shutil.copy(embedded / "images" / "test" / "000001.jpg", tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(embedded.parent)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: Hub(tmp_path))
    local = functools.partial(torch.hub.load, source="local")
    monkeypatch.setattr(torch.hub, "load", local)
    names = {"REPOSITORY": str(ROOT)}
    exec(compile(python_of("use.md"), "use.md", "exec"), names)
    said = capsys.readouterr().out
    assert "ALBEF" in said and "the red circle" in said and "the star on the left" in said
    assert (tmp_path / "my-model" / "model.safetensors").is_file()
    assert (tmp_path / "OWNER" / "my-model" / "model.safetensors").is_file()
    assert isinstance(names["grounder"], groundwork.Grounder)


@pytest.fixture
def own_method(tmp_path, monkeypatch) -> Iterator[Path]:
    """The files of docs/own_method.md at their places in a folder with what the project has."""
    page = ROOT / "docs" / "own_method.md"
    for block in blocks(page, "python") + blocks(page, "yaml"):
        name = tmp_path / block.splitlines()[0].removeprefix("# ")
        name.parent.mkdir(exist_ok=True)
        name.write_text(block)
    for name in ("configs", "checkpoints"):
        (tmp_path / name).symlink_to(ROOT / name)
    write_dataset(tmp_path / "data" / "embedded", scenes=20, seed=1)
    monkeypatch.chdir(tmp_path)
    before = {name: dict(registry) for name, registry in plugins.REGISTRIES.items()}
    yield tmp_path
    for name, content in before.items():
        plugins.REGISTRIES[name].clear()
        plugins.REGISTRIES[name].update(content)


def test_the_method_of_ones_own_is_trained_and_compared_as_it_is_written(own_method, capsys):
    config = own_method / "my_method" / "energy.yaml"
    content = parse_yaml(config.read_text(), config.name)
    content["stages"][0] |= {"epochs": 2, "steps": 2}
    config.write_text(dump_yaml(content))
    for command in blocks(ROOT / "docs" / "own_method.md", "Shell")[0].splitlines():
        main, words = job_of(shlex.split(command))
        small = (
            [] if main.__module__ == "compare" else ["--device", "cpu", "--set", "data.workers=0"]
        )
        main([*words, *small])
    log = (own_method / "runs" / "energy" / "log.txt").read_text()
    assert '"loss_energy": ' in log
    assert "pointing" in capsys.readouterr().out
    assert (own_method / "runs" / "energy_and_base" / "index.html").is_file()


def test_every_system_has_its_page():
    rooms = {path.parent.name for path in (ROOT / "models").glob("*/README.md")}
    assert {path.stem for path in (ROOT / "docs" / "systems").glob("*.md")} == rooms
    for page in (ROOT / "docs" / "systems").glob("*.md"):
        headings = re.findall(r"^## (.*)$", text_of(page), re.MULTILINE)
        assert headings == ["What it needs", "Commands", "Numbers", "Traps"]
