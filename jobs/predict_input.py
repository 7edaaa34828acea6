"""What predict.py is asked about: images of a file, a folder or a list, each with its phrases."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from groundwork.dataset.words import is_blank, require_text
from groundwork.files import foreign
from groundwork.files.safe import inside

STDIN = "-"
_LIST = ".jsonl"
_USAGE = 'give it after the image: predict.py photo.jpg "the red circle"'


@dataclass(frozen=True)
class Question:
    """An image file, its name in what is written, and what is asked about it."""

    path: Path
    name: str
    phrases: tuple[str, ...]


def read_phrases(given: Sequence[str]) -> tuple[str, ...]:
    """The phrases of a command line, - standing for those of standard input, one a line.

    Raises:
        ValueError: one has no word, or is of another encoding.
    """
    phrases: list[str] = []
    for text in given:
        if text == STDIN:
            phrases += [line.strip() for line in sys.stdin if line.strip()]
        elif is_blank(text):
            raise ValueError(f"phrase {text!r} has no word; say what is looked for")
        else:
            phrases.append(require_text(text, "phrase").strip())
    return tuple(dict.fromkeys(phrases))


def read_questions(source: Path, phrases: tuple[str, ...]) -> list[Question]:
    """The questions of an image file, a folder (with its sub-folders) or a list.

    Args:
        source: a list ends in .jsonl and has a line {"image": path, "phrase": text} or {"image":
            path, "phrases": [text, ...]} for each image; relative paths are below its folder.
        phrases: asked about every image; of a list, about those that have none of their own.

    Raises:
        FileNotFoundError: the source, or an image of a list, does not exist.
        ValueError: no phrase, no image in the folder, a name that is not UTF-8, or a line of a
            list that is none.
    """
    require_text(str(source), "the path")
    if source.is_dir():
        return _of_folder(source, _needed(phrases))
    if not source.is_file():
        raise FileNotFoundError(f"{source} does not exist; give an image, a folder or a list")
    if is_list(source):
        return _of_list(source, phrases)
    return [Question(source, source.name, _needed(phrases))]


def is_list(source: str | Path) -> bool:
    """Is it a list of images, by its name?"""
    return Path(source).suffix.lower() == _LIST


def _needed(phrases: tuple[str, ...]) -> tuple[str, ...]:
    if not phrases:
        raise ValueError(f"there is no phrase; {_USAGE}")
    return phrases


def _of_folder(folder: Path, phrases: tuple[str, ...]) -> list[Question]:
    known = Image.registered_extensions()
    found = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in known and path.is_file()
    )
    if not found:
        raise ValueError(f"{folder} holds no image, nor do its folders")
    names = (path.relative_to(folder).as_posix() for path in found)
    return [
        Question(path, require_text(name, f"{folder}: the name"), phrases)
        for path, name in zip(found, names, strict=True)
    ]


def _of_list(path: Path, phrases: tuple[str, ...]) -> list[Question]:
    asked: dict[str, dict[str, None]] = {}
    with foreign.open_text(path, "list") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                source = f"{path}:{number}"
                image, own = parse_line(line, source)
                image = _found(path.parent, image, source)
                if not (own or phrases):
                    raise ValueError(f"{source}: there is no phrase; name one in the line")
                asked.setdefault(image, {}).update(dict.fromkeys(own or phrases))
    if not asked:
        raise ValueError(f'{path} is empty; a line is {{"image": path, "phrase": text}}')
    return [Question(path.parent / image, image, tuple(asked[image])) for image in asked]


def _found(folder: Path, image: str, source: str) -> str:
    """An image by its one name below the folder of its list: ./a.jpg is a.jpg, and a path of
    Windows has its slashes turned round."""
    for name in (image, foreign.forward_slashes(image)):
        # What is written is named after the image and stays in its folder.
        below = inside(name.lstrip("/"), f"{source}: image", "put the list above its images")
        found = f"{'/' if name.startswith('/') else ''}{below.as_posix()}"
        if (folder / found).is_file():
            return found
    raise FileNotFoundError(f"{source}: image {image} does not exist")


def parse_line(line: str, source: str) -> tuple[str, tuple[str, ...]]:
    """The image of a line of a list, and the phrases that it has of its own.

    Raises:
        ValueError: it is no such line; says what one is. `source` is its place.
    """
    row = foreign.parse_json(line, source, "write it again")
    if not (isinstance(row, dict) and isinstance(row.get("image"), str)):
        raise ValueError(
            f'{source}: a line is {{"image": path, "phrase": text}}, got {line[:80]!r}'
        )
    unknown = row.keys() - {"image", "phrase", "phrases"}
    if unknown:
        raise ValueError(f"{source}: keys are image, phrase and phrases, not {sorted(unknown)}")
    return require_text(row["image"], f"{source}: image"), phrases_of(row, source)


def phrases_of(row: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """What `phrase`, a text, and `phrases`, a list of texts, say; either may be missing or null.

    Raises:
        ValueError: one that is no text that can be written, or has no word.
    """
    several = row.get("phrases")
    texts = [
        *([] if row.get("phrase") is None else [row["phrase"]]),
        *(several if isinstance(several, list) else [] if several is None else [several]),
    ]
    for text in texts:
        if not isinstance(text, str) or is_blank(text):
            raise ValueError(f"{source}: phrase {text!r} has no word; say what is looked for")
    return tuple(require_text(text, f"{source}: phrase").strip() for text in texts)
