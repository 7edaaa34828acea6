"""Paraphrases without a model: a table of synonyms, and a chunker by function words.

The table is JSON, {word or words: [synonym, ...]}. It knows no senses: a word belongs into it only
if the synonym fits wherever the word is used in captions.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from groundwork.dataset.formats.entries import load_json
from groundwork.dataset.text import clean_caption
from groundwork.tools.paraphrasing.answers import Chunk, usable_synonyms

TABLE = Path(__file__).parent / "synonyms.json"
# What ends a noun phrase: prepositions, conjunctions, auxiliaries, pronouns.
_BREAKS = frozenset(
    "about above across after against along among around as at away be before behind below beneath"
    " beside between beyond by can down during for from has have having he her his i in inside into"
    " is it its near next of off on onto out outside over past she so that their them there they"
    " through to toward towards under underneath up upon was we were what when where which while"
    " who whose will with without and are but or than then while you your".split()
)
_DETERMINERS = frozenset("a an the this that these those some each every another one".split())
# "a group of people" names people, "a black and white dog" a dog.
_AMOUNTS = frozenset(
    "group groups couple pair pairs bunch lot lots crowd number piece pieces set row team".split()
)
_COLOURS = frozenset(
    "black white brown red blue green yellow orange gray grey pink purple tan silver gold".split()
)
# Nouns that look like the participles that also end a noun phrase.
_NOUNS_IN_ING = frozenset(
    "building ceiling clothing painting railing wing ring king string thing swing evening morning"
    " wedding earring awning crossing icing lightning parking pudding sibling stuffing wiring"
    " spring sling being frosting siding topping landing lighting".split()
)


def load_table(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """The table with cleaned words as keys.

    Raises:
        FileNotFoundError, ValueError: naming the file and the word.
    """
    content = load_json(path, "synonym table")
    if not isinstance(content, Mapping):
        raise ValueError(f"{path}: expected {{word: [synonym, ...]}}")
    table = {}
    for word, synonyms in content.items():
        is_list = isinstance(synonyms, list) and all(isinstance(item, str) for item in synonyms)
        if not is_list or not clean_caption(word, sys.maxsize):
            raise ValueError(f"{path}: {word!r} needs a list of synonyms, not {synonyms!r}")
        table[clean_caption(word, sys.maxsize)] = synonyms
    return table


def chunk(caption: str) -> list[str]:
    """The noun phrases of a caption, cleaned: its stretches between function words and participles.

    "A man in a red shirt is riding a horse." -> ["a man", "a red shirt", "a horse"]
    """
    stretches: list[list[str]] = [[]]
    words = clean_caption(caption, sys.maxsize).split()
    around = ["", *words, ""]
    for number, word in enumerate(words):
        before, after = around[number], around[number + 2]
        participle = re.fullmatch(r"\w{2,}ing", word) and word not in _NOUNS_IN_ING
        # Before a noun it is an adjective: "a smiling woman".
        started = bool(stretches[-1]) and not set(stretches[-1]) <= _DETERMINERS
        joins = (word == "of" and before in _AMOUNTS) or (
            word == "and" and before in _COLOURS and after in _COLOURS
        )
        if joins:
            stretches[-1].append(word)
        elif word in _BREAKS or (participle and (started or not stretches[-1])):
            stretches.append([])
        elif word in _DETERMINERS:
            stretches.append([word])
        else:
            stretches[-1].append(word)
    return [" ".join(words) for words in stretches if not set(words) <= _DETERMINERS]


def answer(text: str, table: Mapping[str, list[str]], *, captions: bool) -> tuple[Chunk, ...]:
    """The chunks of a caption, or the text as one chunk, with the table's synonyms."""
    if captions:
        return tuple(_find(phrase, phrase, table) for phrase in chunk(text))
    head = chunk(text)[:1] or [clean_caption(text, sys.maxsize)]
    return (_find(text, head[0], table),)


def _find(phrase: str, head: str, table: Mapping[str, list[str]]) -> Chunk:
    """The words of the table nearest to the end of `head`, the most of them; else its last word."""
    words = head.split()
    for stop in range(len(words), 0, -1):
        for start in range(stop):
            group = " ".join(words[start:stop])
            found = usable_synonyms(phrase, group, _look_up(group, table))
            if found:
                return Chunk(phrase, group, found)
    return Chunk(phrase, words[-1] if words else "", ())


def _look_up(group: str, table: Mapping[str, list[str]]) -> list[str]:
    if group in table:
        return table[group]
    if group.endswith("s") and group[:-1] in table:
        regular = (word for word in table[group[:-1]] if not word.endswith(("s", "x", "y", "man")))
        return [f"{word}s" for word in regular]
    return []
