"""What a model is asked and what counts as an answer; every answer is checked before it is kept."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from groundwork.dataset.record import Phrase
from groundwork.dataset.text import clean_caption, paraphrase

PROMPTS = Path(__file__).parent
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*)\n\s*```\s*", re.DOTALL)


@dataclass(frozen=True)
class Chunk:
    """A phrase, the words of it that name the object, and what may stand in for these."""

    phrase: str
    group: str
    synonyms: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: dict[str, Any]) -> Chunk:
        return cls(row["phrase"], row["group"], tuple(row["synonyms"]))


class Model(Protocol):
    """Whatever answers a prompt.

    name: part of the cache's key. parallel: requests that may run at once.
    """

    name: str
    parallel: int

    def complete(self, prompt: str) -> str:
        """The answer's text. Raises `NoAnswer` for this prompt, ValueError to end the run."""


class NoAnswer(Exception):
    """A model gave no answer, or none that can be used; the message says why."""


def build_prompt(template: str, texts: Sequence[str]) -> str:
    """The template with the numbered texts, as JSON, in place of `{texts}`.

    Raises:
        ValueError: the template has no such place.
    """
    if "{texts}" not in template:
        raise ValueError("the prompt file has no {texts}, where the texts are put; add it")
    rows = (json.dumps({"id": i, "text": text}, ensure_ascii=False) for i, text in enumerate(texts))
    return template.replace("{texts}", "\n".join(rows))


def parse_answers(
    content: str, texts: Sequence[str], *, captions: bool
) -> tuple[dict[str, tuple[Chunk, ...]], str]:
    """The valid answers of a model's reply, by text, and what was wrong with the first other one.

    Raises:
        NoAnswer: the reply is not the JSON that was asked for.
    """
    fenced = _FENCE.fullmatch(content)
    try:
        reply = json.loads(fenced[1] if fenced else content)
    except json.JSONDecodeError as error:
        raise NoAnswer(f"not JSON ({error})") from error
    answers = reply.get("answers") if isinstance(reply, dict) else None
    if not isinstance(answers, list):
        raise NoAnswer('no list "answers"')
    found: dict[str, tuple[Chunk, ...]] = {}
    wrong = ""
    for answer in answers:
        try:
            index = _get(answer, "id", int)
            if not 0 <= index < len(texts) or texts[index] in found:
                raise NoAnswer(f"id {index} was not asked for, or is there twice")
            rows = _get(answer, "chunks", list)
            found[texts[index]] = _chunks(rows, texts[index], captions=captions)
        except NoAnswer as error:
            wrong = wrong or str(error)
    return found, wrong or "an id is missing"


def _chunks(rows: list[Any], text: str, *, captions: bool) -> tuple[Chunk, ...]:
    chunks = []
    for row in rows:
        phrase, group = _get(row, "phrase", str), _get(row, "object", str)
        synonyms = _get(row, "synonyms", list)
        if not all(isinstance(word, str) for word in synonyms):
            raise NoAnswer(f"synonyms of {phrase!r} are not all strings")
        if not captions:
            phrase = text
        if not _contains(text, phrase):
            raise NoAnswer(f"phrase {phrase!r} is not in {text!r}")
        if not _contains(phrase, group):
            raise NoAnswer(f"object {group!r} is not in {phrase!r}")
        chunks.append(Chunk(phrase, group, usable_synonyms(phrase, group, synonyms)))
    if not captions and len(chunks) != 1:
        raise NoAnswer(f"{len(chunks)} chunks for {text!r} instead of one")
    return tuple(chunks)


def usable_synonyms(phrase: str, group: str, synonyms: Sequence[str]) -> tuple[str, ...]:
    """The cleaned synonyms that change the phrase, each once, in their order."""
    cleaned = dict.fromkeys(clean_caption(word, sys.maxsize) for word in synonyms)
    asked = Phrase(text=phrase, group=group)
    return tuple(word for word in cleaned if paraphrase(asked, word, sys.maxsize) is not None)


def _contains(text: str, words: str) -> bool:
    inner = clean_caption(words, sys.maxsize)
    return bool(inner) and f" {inner} " in f" {clean_caption(text, sys.maxsize)} "


def _get(row: Any, key: str, kind: type) -> Any:
    value = row.get(key) if isinstance(row, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise NoAnswer(f"{key!r} is missing or not a {kind.__name__}: {str(row)[:120]}")
    return value
