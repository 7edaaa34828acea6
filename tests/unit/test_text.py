"""Cleaning, paraphrases, left and right, the tokenizer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from groundwork.dataset.image_text.collate import tokenize
from groundwork.dataset.record import Phrase
from groundwork.dataset.text import (
    clean_caption,
    load_tokenizer,
    paraphrase,
    released_paraphrase,
    swap_left_right,
)
from tests.conftest import GOLDEN
from tests.helpers.dataset_files import write_vocabulary


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("The man's Hat.", "the mans hat"),
        ("left-hand side/top", "left hand side top"),
        ('"Wow!" (really?) *#1: yes; no~', "wow really 1 yes no"),
        ("<person> in  red \n shirt", "person in red shirt"),
        ("<<person>> waits", "<person> waits"),
        ("...", ""),
    ],
)
def test_cleaning_follows_the_released_rule(raw, cleaned):
    assert clean_caption(raw, 50) == cleaned


def test_cleaning_cuts_to_the_maximum_number_of_words():
    assert clean_caption("one two three four", 3) == "one two three"


@given(st.text(alphabet=st.characters(codec="utf-8")) | st.text(alphabet="<>person -/.,'~ \t"))
def test_cleaning_twice_changes_nothing(text):
    once = clean_caption(text, 50)
    assert clean_caption(once, 50) == once


def test_a_paraphrase_replaces_the_group_by_the_synonym():
    phrase = Phrase("The big Dog, on the left", group="Dog")
    assert paraphrase(phrase, "puppy!") == "the big puppy on the left"


def test_a_paraphrase_replaces_whole_words_only():
    assert paraphrase(Phrase("a man near a mantle", group="man"), "guy") == "a guy near a mantle"


def test_a_group_of_several_words_is_replaced_as_one():
    phrase = Phrase("a fire-truck parked", group="fire truck")
    assert paraphrase(phrase, "engine") == "a engine parked"


@pytest.mark.parametrize(
    ("group", "synonym"), [("", "guy"), ("dog", "guy"), ("man", ""), ("man", "?!"), ("man", "Man")]
)
def test_without_another_way_to_say_it_there_is_no_paraphrase(group, synonym):
    assert paraphrase(Phrase("a man", group=group), synonym) is None


@pytest.mark.parametrize(
    ("text", "group", "synonym", "expected"),
    [
        ("A woman and a man", "man", "guy", "a woguy and a guy"),
        ("two dogs", "dog", "puppy", "two puppys"),
        ("a big tree", "dog", "puppy", "a big tree"),
        ("a cat", "", "x", "xax xcxaxtx"),
        ("the red car", "Red!", "?", "the car"),
    ],
)
def test_a_released_paraphrase_replaces_text(text, group, synonym, expected):
    assert released_paraphrase(Phrase(text, group=group), synonym) == expected


def test_mirroring_words_exchanges_left_and_right_but_no_parts_of_other_words():
    text = "leftmost man right of the bright cleft on the left hand side"
    swapped = "rightmost man left of the bright cleft on the right hand side"
    assert swap_left_right(text) == swapped
    assert swap_left_right(swapped) == text


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_vocabulary_is_enough_for_a_tokenizer(tmp_path, as_folder):
    path = write_vocabulary(tmp_path)
    tokenizer = load_tokenizer(tmp_path if as_folder else path)
    ids = tokenizer("The man dogs zebra")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == "[CLS] the man dog ##s [UNK] [SEP]".split()
    assert (tokenizer.pad_token_id, tokenizer.mask_token_id, len(tokenizer)) == (0, 4, 22)


def test_a_folder_without_vocabulary_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"vocab\.txt"):
        load_tokenizer(tmp_path)


def test_a_name_that_is_nowhere_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match="no-such-encoder.*vocabulary"):
        load_tokenizer("no-such-encoder")


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\nman\n")
    with pytest.raises(ValueError, match=r"\[SEP\] \[MASK\]"):
        load_tokenizer(tmp_path)


def test_the_vocabulary_of_bert_ships_with_the_project_and_needs_no_download(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    tokenizer = load_tokenizer("bert-base-uncased")
    assert len(tokenizer) == 30522
    assert tokenizer("A man in a Groundwork hat.")["input_ids"] == [
        101, 1037, 2158, 1999, 1037, 2598, 6198, 6045, 1012, 102,
    ]  # fmt: skip
    special = (tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.mask_token_id)
    assert special == (0, 100, 103)


def test_a_folder_of_the_user_wins_over_a_shipped_vocabulary_of_that_name(tmp_path, monkeypatch):
    (tmp_path / "bert-base-uncased").mkdir()
    write_vocabulary(tmp_path / "bert-base-uncased")
    monkeypatch.chdir(tmp_path)
    assert len(load_tokenizer("bert-base-uncased")) == 22


def test_albefs_tokens_are_those_of_the_published_tokeniser():
    cases = json.loads((GOLDEN / "albef_tokens.json").read_text())["cases"]
    tokenizer = load_tokenizer("bert-base-uncased")
    for case in cases:
        for name, limit in (("evaluation", None), ("training", 25)):
            ids, mask = tokenize(tokenizer, [case["text"]], limit)
            assert ids[0][mask[0].bool()].tolist() == case[name]


@pytest.mark.parametrize(
    ("extra", "message"), [("man", "line 8, 'man', is empty or comes again"), ("", "line 21, ''")]
)
def test_a_vocabulary_whose_ids_would_shift_is_refused(tmp_path, extra, message):
    path = write_vocabulary(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:20], extra, *lines[20:]]) + "\n")
    with pytest.raises(ValueError, match=message):
        load_tokenizer(path)
