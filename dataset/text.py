"""Phrases as text: cleaning, paraphrases, left and right, the tokenizer."""

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.implementations import BertWordPieceTokenizer, ByteLevelBPETokenizer
from tokenizers.processors import RobertaProcessing
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from groundwork.dataset.formats.entries import load_json
from groundwork.dataset.record import Phrase
from groundwork.dataset.words import is_blank
from groundwork.files.foreign import read_text

# Cleaning as ALBEF, AMC and SelfEQ were trained with.
_CLEANING = str.maketrans({**dict.fromkeys(",.'!?\"()*#:;~", ""), "-": " ", "/": " "})
_SIDE = re.compile(r"\b(left|right)(most|ward|wards|hand|side)?\b")
_SPECIAL = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
_SPECIAL_OF_ROBERTA = {
    "pad_token": "<pad>",
    "unk_token": "<unk>",
    "cls_token": "<s>",
    "sep_token": "</s>",
    "bos_token": "<s>",
    "eos_token": "</s>",
}
_MASK_OF_ROBERTA = "<mask>"
BYTE_PAIRS = ("vocab.json", "merges.txt")
VOCABULARIES = Path(__file__).parent / "vocabularies"
_OTHER_SIDE = {"left": "right", "right": "left"}


def clean_caption(text: str, max_words: int) -> str:
    """Lower-case `text`, drop punctuation, squeeze white space, keep the first `max_words` words.

    Returns "" if nothing is left, which is read as [CLS] alone.
    """
    text = text.lower().translate(_CLEANING).replace("<person>", "person")
    return "" if is_blank(text) else " ".join(text.split()[:max_words])


def paraphrase(phrase: Phrase, synonym: str, max_words: int = 50) -> str | None:
    """The cleaned text with every whole-word occurrence of the cleaned `phrase.group` replaced by
    the cleaned synonym.

    Returns None where there is nothing to say differently: no group, a group that is not in the
    text, a synonym that cleans to nothing or to the group itself.
    """
    text = clean_caption(phrase.text, max_words)
    group = clean_caption(phrase.group, max_words)
    synonym = clean_caption(synonym, max_words)
    if not group or not synonym or group == synonym:
        return None
    # Words of cleaned text are parted by single spaces; \b would split at apostrophe-like
    # characters that stay.
    replaced, count = re.subn(rf"(?<!\S){re.escape(group)}(?!\S)", lambda _: synonym, text)
    return clean_caption(replaced, max_words) if count else None


def released_paraphrase(phrase: Phrase, synonym: str, max_words: int = 50) -> str:
    """As SelfEQ was released: the cleaned text with every occurrence of the cleaned group, inside
    words too, replaced by the cleaned synonym; not cut to `max_words` again.

    There is always one: the text itself where the group is not in it, the synonym between all
    characters where the group is empty.
    """
    text = clean_caption(phrase.text, max_words)
    group, other = clean_caption(phrase.group, max_words), clean_caption(synonym, max_words)
    return " ".join(text.replace(group, other).split())


PARAPHRASE_RULES: dict[str, Callable[[Phrase, str, int], str | None]] = {
    "released": released_paraphrase,
    "whole_words": paraphrase,
}


def swap_left_right(text: str) -> str:
    """Exchange left and right (leftmost, ...) in cleaned text, as a mirrored image demands."""
    return _SIDE.sub(lambda match: _OTHER_SIDE[match[1]] + (match[2] or ""), text)


def load_tokenizer(name_or_folder: str | os.PathLike[str]) -> PreTrainedTokenizerBase:
    """The tokenizer of BERT from a folder with `vocab.txt`, or from such a file; that of RoBERTa
    from a folder with `vocab.json` and `merges.txt`; or one by name: that of a folder in
    `dataset/vocabularies`, which needs no download, or a name on the hub.

    Raises:
        FileNotFoundError: the path has no vocabulary, or the name is neither a path nor to be had
            from the hub.
        ValueError: the vocabulary lacks a special token, or a file of byte pairs is damaged.
    """
    path = Path(name_or_folder)
    shipped = VOCABULARIES / path.name
    if not path.exists() and len(path.parts) == 1 and shipped.is_dir():
        path = shipped
    vocabulary = path / "vocab.txt" if path.is_dir() else path
    if vocabulary.is_file():
        return _from_vocabulary(vocabulary)
    if all((path / name).is_file() for name in BYTE_PAIRS):
        return _from_byte_pairs(*(path / name for name in BYTE_PAIRS))
    if path.is_dir():
        raise FileNotFoundError(
            f"text_encoder folder {path} holds neither vocab.txt nor {' and '.join(BYTE_PAIRS)}; "
            "put the WordPiece vocabulary of BERT, or the byte pairs of RoBERTa, there"
        )
    try:
        return AutoTokenizer.from_pretrained(os.fspath(name_or_folder))
    except (OSError, ValueError) as error:
        raise FileNotFoundError(
            f"text_encoder {name_or_folder!s} is neither a vocab.txt, nor a folder with one, nor to"
            " be had from the hub; download the vocabulary of bert-base-uncased and give its path"
        ) from error


def _require_tokens(words: Collection[str], special: Iterable[str], file: Path, what: str) -> None:
    missing = [token for token in dict.fromkeys(special) if token not in words]
    if missing:
        raise ValueError(f"{file} lacks {' '.join(missing)}; it is not {what}")


def _from_vocabulary(vocabulary: Path) -> PreTrainedTokenizerBase:
    words = read_text(vocabulary, "vocabulary").rstrip("\n").split("\n")
    _require_tokens(words, _SPECIAL.values(), vocabulary, "a BERT WordPiece vocabulary")
    if len(set(words)) < len(words) or "" in words:
        again, _ = Counter([*words, *[""] * words.count("")]).most_common(1)[0]
        raise ValueError(
            f"{vocabulary}: line {words.index(again) + 1}, {again!r}, is empty or comes again, so"
            " that ids would be others than the model's; copy the file anew"
        )
    # BertTokenizerFast takes its vocabulary under different names in transformers 4 and 5 and
    # ignores the wrong one.
    word_pieces = BertWordPieceTokenizer(
        {word: index for index, word in enumerate(words)}, lowercase=True
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(word_pieces.to_str()), **_SPECIAL
    )


def _from_byte_pairs(vocabulary: Path, merges: Path) -> PreTrainedTokenizerBase:
    ids = load_json(vocabulary, "vocabulary")
    special = (*_SPECIAL_OF_ROBERTA.values(), _MASK_OF_ROBERTA)
    _require_tokens(ids, special, vocabulary, "RoBERTa's vocabulary of byte pairs")
    pairs = _read_merges(merges, ids)
    byte_pairs = ByteLevelBPETokenizer(ids, pairs, trim_offsets=True)
    tokenizer = Tokenizer.from_str(byte_pairs.to_str())
    start, end = _SPECIAL_OF_ROBERTA["cls_token"], _SPECIAL_OF_ROBERTA["sep_token"]
    tokenizer.post_processor = RobertaProcessing(
        (end, ids[end]), (start, ids[start]), add_prefix_space=False
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        # As released, the space before a mask is part of it.
        mask_token=AddedToken(_MASK_OF_ROBERTA, lstrip=True),
        **_SPECIAL_OF_ROBERTA,
    )


def _read_merges(merges: Path, ids: Collection[str]) -> list[tuple[str, str]]:
    """The pairs of a merges.txt, the first one first."""
    pairs, known = [], set(ids)
    for number, line in enumerate(read_text(merges, "byte pairs").splitlines(), 1):
        if not line or line.startswith("#version"):
            continue
        first, _, second = line.partition(" ")
        if not {first, second, first + second} <= known:
            raise ValueError(
                f"{merges}: line {number}, {line!r}, joins what its vocab.json does not hold; "
                "fetch both files from the same folder"
            )
        pairs.append((first, second))
    return pairs
