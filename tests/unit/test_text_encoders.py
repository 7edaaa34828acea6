"""Tokenizers of text networks: RoBERTa's byte pairs, and folders that are no tokenizer."""

import json

import pytest

from groundwork.dataset.text import load_tokenizer

WORDS = [
    "<s>",
    "<pad>",
    "</s>",
    "<unk>",
    "<mask>",
    *"abcdemnotw",
    "\u0120",
    "\u0120m",
    "en",
    "\u0120men",
]
MERGES = ["\u0120 m", "e n", "\u0120m en"]


@pytest.fixture
def folder(tmp_path):
    ids = {word: index for index, word in enumerate(WORDS)}
    (tmp_path / "vocab.json").write_text(json.dumps(ids), encoding="utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", "utf-8")
    return tmp_path


def pieces(tokenizer, text):
    return tokenizer.convert_ids_to_tokens(tokenizer(text)["input_ids"])


def test_a_folder_of_byte_pairs_is_a_tokenizer_of_roberta(folder):
    tokenizer = load_tokenizer(folder)
    assert pieces(tokenizer, "two men") == ["<s>", "t", "w", "o", "\u0120men", "</s>"]
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id) == (1, 0, 2)
    assert pieces(tokenizer, "") == ["<s>", "</s>"]


def test_characters_find_their_byte_pairs_without_the_space_before_them(folder):
    encoded = load_tokenizer(folder)("two men", return_offsets_mapping=True)
    assert encoded["offset_mapping"][4] == (4, 7)
    assert [encoded.char_to_token(place) for place in (0, 4, 6)] == [1, 4, 4]


def test_a_folder_of_half_a_vocabulary_is_refused(folder):
    (folder / "merges.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"neither vocab.txt nor vocab.json and merges.txt"):
        load_tokenizer(folder)


def test_byte_pairs_without_their_special_tokens_are_refused(folder):
    (folder / "vocab.json").write_text(json.dumps({"<s>": 0, "a": 1}))
    with pytest.raises(ValueError, match="vocab.json lacks <pad> <unk> </s> <mask>"):
        load_tokenizer(folder)


@pytest.mark.parametrize("merges", ["x y", "t w o", "alone"])
def test_merges_of_another_vocabulary_are_refused(folder, merges):
    (folder / "merges.txt").write_text(merges + "\n")
    with pytest.raises(ValueError, match="merges.txt: line 1, .*vocab.json does not hold"):
        load_tokenizer(folder)
