"""Phrases in images of anybody's, by any number of checkpoints: the job behind predict.py."""

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from groundwork import utils
from groundwork.dataset.images import CorruptImageError
from groundwork.engine.folder import FAULTS
from groundwork.files.manifest import fingerprints, write_manifest
from groundwork.files.safe import atomic_write, write_text
from groundwork.geometry import Grounding
from groundwork.jobs import plugins, predict_many
from groundwork.jobs.bulk import run as bulk
from groundwork.jobs.folders import RUNS
from groundwork.jobs.open_image import open_image
from groundwork.jobs.predict_files import WRITERS, Collected, require_own_labels, row_of
from groundwork.jobs.predict_input import STDIN, Question, is_list, read_phrases, read_questions
from groundwork.jobs.systems import (
    UNASKED,
    System,
    add_system_arguments,
    checkpoints_of,
    load_systems,
)
from groundwork.report.overlays import Answer, draw_words, save_overlays, verdict

logger = logging.getLogger("groundwork")
PREDICTIONS, OVERLAYS, WORDS = "predictions.jsonl", "overlays", "words"
MANIFEST, BEGUN = "predict_manifest.json", ".begun.json"
_NAMED = 5


def main(argv: Sequence[str] | None, *, description: str = "") -> dict[str, Any]:
    """Ask as the arguments say; writes overlays, predictions.jsonl and exports.

    Returns:
        `out`: the folder; `images`: how many were read; `faults`: what is said of the others.
    """
    args = parse_args(argv, description)
    utils.setup_logging()
    plugins.load(args.plugin)
    phrases = read_phrases(args.phrases)
    checkpoints = checkpoints_of(args.checkpoint)
    if args.checkpoint is None:
        logger.warning("%s For photographs, --checkpoint names another one.", UNASKED)
    if args.parquet:
        return predict_many.run(args, checkpoints, phrases)
    questions = read_questions(Path(args.source), phrases)
    if "yolo" in args.write:
        require_own_labels(question.name for question in questions)
    asked = json.dumps({**vars(args), "phrases": list(phrases)}, ensure_ascii=False) + "\n"
    _output_folder(args.out, Path(args.source), asked)  # what is wrong with it, soon
    systems = load_systems(checkpoints, args)
    if args.words and not any(system.grounder.gives_word_maps for system in systems):
        raise ValueError(
            f"--words: {', '.join(system.name for system in systems)} gives no maps of words; ask a"
            " checkpoint of ALBEF, AMC or SelfEQ"
        )
    # Another call may have begun meanwhile.
    out = _output_folder(args.out, Path(args.source), asked)
    collected = {system.key: Collected() for system in systems}
    write_text(out / BEGUN, asked)
    faults = _ask(questions, systems, out, collected, strict=_strict(args), words=args.words)
    for kind in dict.fromkeys(args.write):
        for system in systems:
            print(WRITERS[kind](out, system.key, collected[system.key]))
    write_manifest(
        out,
        {"checkpoints": {one.key: str(one.grounder.about) for one in systems}},
        seed=0,
        data=fingerprints(file for file in checkpoints if file.is_file()),
        name=MANIFEST,
    )
    (out / BEGUN).unlink(missing_ok=True)
    read = len(questions) - len(faults)
    _report(out, read, faults)
    return {"out": out, "images": read, "faults": faults}


def parse_args(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """What the command says."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="an image, a folder of images, or a list (.jsonl)")
    parser.add_argument(
        "phrases", nargs="*", help=f"what is looked for; {STDIN} reads one a line from input"
    )
    add_system_arguments(parser)
    parser.add_argument("--out", help=f"receives what is found ({RUNS}/predict/NAME, a new one)")
    parser.add_argument(
        "--write", nargs="+", choices=sorted(WRITERS), default=[], help="files of others, too"
    )
    parser.add_argument(
        "--words", action="store_true", help=f"draw the map of every word, too ({WORDS}; ALBEF)"
    )
    parser.add_argument(
        "--strict", action="store_true", help="stop at the first image that cannot be read"
    )
    bulk.add_arguments(parser)
    return parser.parse_intermixed_args(argv)  # phrases may stand behind options, too


def _output_folder(given: str | None, source: Path, asked: str) -> Path:
    """The folder that this call writes to: the one that was named, or a new one.

    Raises:
        FileExistsError: the named one holds something else than what a call that asked the same,
            and did not end, has left there.
    """
    if given is None:
        first = RUNS / "predict" / (source.stem or source.resolve().name)
        out, number = first, 1
        while out.exists():
            number += 1
            out = first.with_name(f"{first.name}_{number}")
        return out
    out = Path(given)
    if out.exists() and not (out.is_dir() and _may_begin(out, asked)):
        raise FileExistsError(
            f"--out {out} is not empty; choose another folder, so that calls are not mixed"
        )
    return out


def _may_begin(out: Path, asked: str) -> bool:
    left = [path for path in out.iterdir() if path.suffix != ".tmp"]
    begun = out / BEGUN
    return not left or (begun.is_file() and begun.read_text(encoding="utf-8") == asked)


def _strict(args: argparse.Namespace) -> bool:
    """A single image is all that was asked for, so that nothing goes on without it."""
    return args.strict or not (Path(args.source).is_dir() or is_list(args.source))


def _ask(
    questions: Sequence[Question],
    systems: Sequence[System],
    out: Path,
    collected: dict[str, Collected],
    *,
    strict: bool,
    words: bool,
) -> list[str]:
    """Every system about every image; returns what is said of images that cannot be read."""
    faults: list[str] = []
    alone = len(questions) == 1
    # The file appears when all is asked: a folder without it is of a call that did not end.
    with atomic_write(out / PREDICTIONS) as partial, partial.open("w", encoding="utf-8") as file:
        for question in tqdm(questions, unit="image", disable=alone):
            try:
                answers = _answers(question, systems, words)
                picture, _ = open_image(question.path, "shown")
            except CorruptImageError as error:
                if strict:
                    raise
                faults.append(str(error))
                continue
            for system, answer in zip(systems, answers, strict=True):
                found = answer.groundings
                collected[system.key].add(question.name, question.path, found[0].size, found)
                for one in found:
                    row = row_of(question.name, system.name, one)
                    file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                    if alone:
                        print(_line(answer.system, one))
            save_overlays(_drawing(out / OVERLAYS, question), picture, answers)
            explained = [answer for answer in answers if answer.groundings[0].word_maps]
            if explained:
                save_overlays(_drawing(out / WORDS, question), picture, explained, draw_words)
    if faults:
        write_text(out / FAULTS, "".join(f"{line}\n" for line in faults))
    return faults


def _answers(question: Question, systems: Sequence[System], words: bool) -> list[Answer]:
    found = []
    for system in systems:
        asked = words and system.grounder.gives_word_maps
        groundings = system.grounder.ground(question.path, question.phrases, words=asked)
        found.append(Answer(system.name, groundings))
    return found


def _drawing(folder: Path, question: Question) -> Path:
    """FOLDER/NAME.png with the ending of the image in NAME: a.jpg and a.png are two images."""
    return folder / f"{question.name.lstrip('/')}.png"


def _line(system: str, found: Grounding) -> str:
    x, y = found.point
    place = f"point ({x:.0f}, {y:.0f})"
    if len(found.boxes):
        place += f", box ({', '.join(f'{n:.0f}' for n in found.boxes[0])})"
    words = verdict(found)
    return f"{system}: {found.phrase}: {f'{place}, {words}' if found.is_there else words}"


def _report(out: Path, read: int, faults: Sequence[str]) -> None:
    if faults:
        logger.warning(
            "%d of the images cannot be read; left out (--strict stops at the first), see %s:\n%s",
            len(faults), out / FAULTS, "\n".join(faults[:_NAMED]),
        )  # fmt: skip
    print(f"{read} image{'s' * (read != 1)}: {out / OVERLAYS}, {out / PREDICTIONS}")
