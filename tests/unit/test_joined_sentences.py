"""Sentences of an image as one text: what is joined, what not, and where its phrases are then."""

from dataclasses import replace

import pytest
import torch

from groundwork.dataset.referring.joined import JoinedSentences
from groundwork.dataset.referring.text import ReferringText
from tests.helpers.referring_batches import (
    DOG,
    HAT,
    MAN,
    SENTENCE,
    TOKENIZER,
    batch_of,
    phrase,
    record,
    write_images,
)


@pytest.fixture
def images(tmp_path):
    write_images(tmp_path)
    return tmp_path


def joined(records, most=2, *, max_phrases=16, max_tokens=40):
    text = ReferringText(TOKENIZER, multi_phrase=True, max_tokens=max_tokens)
    return JoinedSentences(records, most=most, max_phrases=max_phrases, text=text)


def test_sentences_of_an_image_are_one_text_with_all_their_phrases(images):
    """The boxes of a network are those of the phrases, wherever in the text these stand."""
    one = record(MAN, HAT)
    two = record(replace(DOG, boxes=((0, 0, 10, 10),)), phrase("dog"), sentence="his small dog")
    (both,) = joined([one, two])
    assert both.sentence == f"{SENTENCE} his small dog"
    texts = ["A man", "a red hat", "his small dog", "dog"]
    assert [phrase.text for phrase in both.phrases] == texts
    starts = [phrase.start for phrase in both.phrases]
    assert starts == [0, 11, len(SENTENCE) + 1, len(SENTENCE) + 11]
    batch = batch_of([both], images, multi=True)
    tokens = batch["text_ids"][0].tolist()
    spans = zip(batch["phrase_start"][0].tolist(), batch["phrase_stop"][0].tolist(), strict=True)
    words = [TOKENIZER.decode(tokens[start:stop]) for start, stop in spans]
    assert words == ["a man", *texts[1:]]
    alone = torch.cat([*batch_of([one, two], images, multi=True)["target_boxes"]])
    torch.testing.assert_close(batch["target_boxes"][0], alone)


def test_expressions_are_sentences_where_none_is_known():
    (both,) = joined([record(MAN, DOG, sentence=""), record(HAT, sentence="")])
    assert both.sentence == "a man his small dog a red hat"
    found = [both.sentence[one.start :].startswith(one.text) for one in both.phrases]
    assert found == [True] * 3 and [one.start for one in both.phrases] == [0, 6, 20]
    (alone,) = joined([record(phrase(" His small dog "), sentence="")])
    assert alone.sentence == alone.phrases[0].text == "his small dog"
    assert alone.phrases[0].start == 0


def test_what_is_joined_is_of_one_image_and_within_the_limits():
    wide, tall = [record(MAN)] * 5, [record(HAT, DOG, image="tall.png")] * 2
    sizes = lambda found: [len(one.phrases) for one in found]  # noqa: E731
    assert sizes(joined([*wide, *tall], most=3)) == [3, 2, 4]
    assert sizes(joined(wide, most=1)) == [1] * 5
    assert sizes(joined([*wide, *tall], most=9, max_phrases=3)) == [3, 2, 2, 2]
    words = len(TOKENIZER(SENTENCE)["input_ids"])
    assert sizes(joined(wide, most=9, max_tokens=2 * words - 2)) == [2, 2, 1]
    assert sizes(joined(wide, most=9, max_tokens=2 * words - 3)) == [1] * 5
    assert sizes(joined([wide[0], replace(wide[0], width=81)])) == [1, 1]
    assert sizes(joined([wide[0], replace(wide[0], image_ids=("vg:1",))])) == [1, 1]
    assert sizes(joined([record(MAN)] * 14, most=3)) == [3, 3, 3, 1, 3, 1], "every fourth is short"
    found = joined([*wide, *tall], most=3)
    assert [found[index] for index in range(len(found))] == list(found)
    with pytest.raises(ValueError, match=r"list\.pth\[3\]: phrase 'A cat' is not in its sentence"):
        list(joined([wide[0], record(phrase("A cat"))]))
