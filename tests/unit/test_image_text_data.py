"""Training and evaluation data sets and their batches."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from groundwork.dataset.image_text.collate import EvalCollate, TrainCollate, tokenize
from groundwork.dataset.image_text.dataset import EvalDataset, TrainDataset, usable_boxes
from groundwork.dataset.image_text.transforms import EvalTransform, TrainTransform
from groundwork.dataset.images import CorruptImageError, load_image, resolve_image
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.text import load_tokenizer
from tests.helpers.dataset_files import write_image, write_vocabulary

BOX, OTHER = (5.0, 5.0, 40.0, 50.0), (50.0, 10.0, 79.0, 30.0)
TRANSFORM = TrainTransform(32, 16)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    return load_tokenizer(write_vocabulary(tmp_path_factory.mktemp("vocabulary")))


@pytest.fixture
def root(tmp_path):
    """Six images of 80 x 60 pixels."""
    for index in range(6):
        write_image(tmp_path / f"{index}.jpg", seed=index)
    return tmp_path


def record(index: int = 0, text: str = "a man on the left", boxes=(BOX,), **changes) -> Record:
    phrase = Phrase(text, boxes=tuple(boxes), synonyms=("guy",), group="man")
    return Record(f"{index}.jpg", 80, 60, (phrase,), source=f"train.json[{index}]", **changes)


def truncate(path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_sample_depends_on_seed_epoch_and_index_alone(root):
    records = [record(index) for index in range(3)]
    first = TrainDataset(records, root, TRANSFORM, seed=7)[2, 1]
    again = TrainDataset(records, root, TRANSFORM, seed=7)[2, 1]
    later = TrainDataset(records, root, TRANSFORM, seed=7)[3, 1]
    other = TrainDataset(records, root, TRANSFORM, seed=8)[2, 1]
    assert torch.equal(first.image, again.image)
    assert torch.equal(first.region_mask, again.region_mask)
    assert not torch.equal(first.image, later.image)
    assert not torch.equal(first.image, other.image)


def test_every_caption_and_every_box_is_drawn_over_the_epochs(root):
    phrases = tuple(Phrase(text, boxes=(BOX, OTHER)) for text in ("a man", "the guy"))
    data = TrainDataset([Record("0.jpg", 80, 60, phrases)], root, TrainTransform(32, 16, False))
    samples = [data[epoch, 0] for epoch in range(24)]
    assert {sample.phrase for sample in samples} == {"a man", "the guy"}
    assert len({sample.region_mask.sum().item() for sample in samples}) == 2


def test_all_boxes_of_a_phrase_are_its_region_on_request(root):
    def region(*boxes, **options):
        phrases = (Phrase("two men", boxes=boxes),)
        records, transform = [Record("0.jpg", 80, 60, phrases)], TrainTransform(32, 16, False)
        return TrainDataset(records, root, transform, **options)[0, 0].region_mask

    both = region(BOX, OTHER, all_boxes=True)
    assert torch.equal(both, torch.maximum(region(BOX), region(OTHER)))


def test_left_and_right_are_exchanged_exactly_when_the_image_is_mirrored(root):
    swapping = TrainDataset([record()], root, TRANSFORM, flip_swaps_words=True)
    released = TrainDataset([record()], root, TRANSFORM, flip_swaps_words=False)
    sides = set()
    for epoch in range(12):
        sample = swapping[epoch, 0]
        # The box lies in the left half, so its region tells whether the image was mirrored.
        mirrored = bool(sample.region_mask[:, 8:].sum() > sample.region_mask[:, :8].sum())
        side = "right" if mirrored else "left"
        assert sample.phrase == f"a man on the {side}"
        assert sample.paraphrase == f"a guy on the {side}"
        assert released[epoch, 0].phrase == "a man on the left"
        sides.add(side)
    assert sides == {"left", "right"}


def paraphrases(root, rule, *synonyms, group="man"):
    phrase = Phrase("a man", synonyms=synonyms, group=group)
    records = [Record("0.jpg", None, None, (phrase,))]
    data = TrainDataset(records, root, TRANSFORM, paraphrase_rule=rule)
    return {data[epoch, 0].paraphrase for epoch in range(12)}


def test_only_synonyms_that_say_it_differently_are_drawn_of_whole_words(root):
    assert paraphrases(root, "whole_words", "man", "?", "guy") == {"a guy"}
    assert paraphrases(root, "whole_words", "guy", group="dog") == {None}


def test_as_released_every_list_of_synonyms_gives_a_paraphrase(root):
    assert paraphrases(root, "released", "man", "?", "guy") == {"a man", "a", "a guy"}
    assert paraphrases(root, "released", "guy", group="dog") == {"a man"}
    assert paraphrases(root, "released") == {None}


def test_a_degenerate_box_is_redrawn_from_the_records_other_boxes(root):
    boxes = [(9.0, 9.0, 9.0, 30.0), (30.0, 9.0, 5.0, 20.0), OTHER]
    data = TrainDataset([record(boxes=boxes)], root, TrainTransform(32, 16, False))
    expected = TrainDataset([record(boxes=[OTHER])], root, TrainTransform(32, 16, False))[0, 0]
    for epoch in range(6):
        assert torch.equal(data[epoch, 0].region_mask, expected.region_mask)


@pytest.mark.parametrize("box", [(9.0, 9.0, 9.0, 30.0), (30.0, 9.0, 5.0, 20.0)])
def test_a_record_without_a_usable_box_has_an_empty_region_and_says_so(root, box):
    sample = TrainDataset([record(boxes=[box])], root, TRANSFORM)[0, 0]
    assert sample.region_mask.shape == (16, 16)
    assert not sample.region_mask.any()
    (fault,) = sample.faults
    assert fault.startswith("train.json[0]: no box of 'a man on the left' covers a pixel of 0.jpg")
    assert fault.endswith("its region is empty")


def test_boxes_are_not_looked_at_without_regions(root):
    transform = TrainTransform(32, 16, regions=False)
    sample = TrainDataset([record(boxes=[(9, 9, 9, 9)])], root, transform)[0, 0]
    assert (sample.region_mask, sample.faults) == (None, [])


@given(
    st.lists(st.tuples(*[st.floats(-500, 500, allow_subnormal=False)] * 4), max_size=5),
    st.tuples(st.integers(1, 200), st.integers(1, 200)),
)
def test_usable_boxes_lie_in_the_image_and_cover_a_pixel(boxes, size):
    height, width = size
    for x1, y1, x2, y2 in usable_boxes(boxes, size):
        assert 0 <= int(x1) < int(x2) <= width
        assert 0 <= int(y1) < int(y2) <= height


def squashed() -> Record:
    return Record("0.jpg", 160, 120, (Phrase("a man", boxes=(BOX,)),), source="val.json[3]")


def test_boxes_for_another_size_of_the_image_are_refused_in_training(root):
    message = r"val\.json\[3\]: boxes are for 0\.jpg of 160x120 pixels, the file has 80x60"
    with pytest.raises(ValueError, match=message):
        TrainDataset([squashed()], root, TRANSFORM)[0, 0]


@pytest.mark.parametrize(("stated", "size"), [(True, (120, 160)), (False, (60, 80))])
def test_points_are_found_in_the_stated_size_or_in_the_images(root, stated, size):
    data = EvalDataset([squashed(), record(0)], root, EvalTransform(32), 30, stated_size=stated)
    assert data[0].size == size
    (fault,) = data[0].faults
    assert "boxes are for 0.jpg of 160x120 pixels, the file has 80x60" in fault
    # Records of one image that state different sizes are items of their own.
    assert len(data) == (2 if stated else 1)
    assert data[len(data) - 1].size == (60, 80)


def test_a_phrase_that_cleans_to_nothing_is_read_as_cls_alone_and_named(root, tokenizer):
    fault = "train.json[0]: phrase '?!' has no word; it is read as [CLS] alone"
    sample = TrainDataset([record(text="?!")], root, TRANSFORM)[0, 0]
    assert (sample.phrase, sample.faults) == ("", [fault])
    batch = TrainCollate(tokenizer, 25, 16)([sample])
    assert batch["text_ids"].tolist() == [[tokenizer.cls_token_id]]
    assert batch["faults"] == [fault]
    data = EvalDataset([record(text="?!")], root, EvalTransform(32), 30)
    assert (data[0].phrase, data[0].faults) == ([""], [fault])
    assert EvalCollate(tokenizer)([data[0]])["faults"] == [fault]


def test_a_missing_image_is_named_with_its_record_and_remedy(root):
    with pytest.raises(FileNotFoundError, match=r"train\.json\[99\].*99\.jpg.*set image_root"):
        TrainDataset([record(99)], root, TRANSFORM)[0, 0]


def test_a_truncated_or_foreign_image_is_named_with_its_record_and_remedy(root):
    truncate(root / "1.jpg")
    (root / "2.jpg").write_text("not an image")
    data = TrainDataset([record(index) for index in range(3)], root, TRANSFORM, opener="shown")
    for index in (1, 2):
        with pytest.raises(CorruptImageError, match=rf"train\.json\[{index}\].*tolerate_corrupt"):
            data[0, index]


def test_a_tolerated_corrupt_image_is_replaced_by_the_next_good_record_and_counted(root):
    truncate(root / "1.jpg")
    truncate(root / "2.jpg")
    records = [record(index) for index in range(4)]
    data = TrainDataset(records, root, TRANSFORM, tolerate_corrupt=True, opener="shown")
    sample = data[0, 1]
    assert sample.image_path.endswith("3.jpg")
    assert sample.corrupt == 2
    assert torch.equal(sample.image, data[0, 1].image)


def test_tolerance_ends_where_every_image_is_corrupt(root):
    truncate(root / "0.jpg")
    truncate(root / "1.jpg")
    records = [record(0), record(1)]
    data = TrainDataset(records, root, TRANSFORM, tolerate_corrupt=True, opener="shown")
    with pytest.raises(CorruptImageError):
        data[0, 0]


def test_tolerance_does_not_extend_to_missing_images(root):
    data = TrainDataset([record(99), record(1)], root, TRANSFORM, tolerate_corrupt=True)
    with pytest.raises(FileNotFoundError):
        data[0, 0]


def test_an_empty_list_of_records_is_refused(root):
    with pytest.raises(ValueError, match="train_file"):
        TrainDataset([], root, TRANSFORM)
    with pytest.raises(ValueError, match="test_file"):
        EvalDataset([], root, EvalTransform(32), 30)


@pytest.mark.parametrize("allow_outside", [False, True])
def test_published_absolute_paths_are_found_below_the_image_root(tmp_path, allow_outside):
    image = write_image(tmp_path / "images" / "VG_100K" / "1.jpg")
    write_image(tmp_path / "images" / "1.jpg")
    root = str(tmp_path / "images")
    find = partial(resolve_image, root, allow_outside=allow_outside)
    assert find(str(image)) == image
    assert find("VG_100K/1.jpg") == image
    assert find("/lab/data/VG_100K/1.jpg") == image
    assert find("VG_100K_2/1.jpg") == tmp_path / "images" / "1.jpg"


def test_grey_palette_and_transparent_images_become_rgb(tmp_path):

    for mode in ("L", "P", "RGBA", "CMYK"):
        path = tmp_path / f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}"
        Image.new(mode, (5, 4)).save(path)
        assert load_image(path).shape == (4, 5, 3)


def test_a_training_batch_has_every_key_in_its_shape(root, tokenizer):
    plain = Record("2.jpg", None, None, (Phrase("the dog"),))
    data = TrainDataset([record(0), record(1), plain], root, TrainTransform(32, 16, False))
    batch = TrainCollate(tokenizer, 25, 16)([data[0, index] for index in range(3)])
    assert batch["image"].shape == (3, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["text_ids"].shape == batch["text_mask"].shape == (3, 6)
    assert batch["text_mask"].sum(1).tolist() == [6, 6, 3]
    assert batch["paraphrase_index"].tolist() == [0, 1]
    assert batch["paraphrase_ids"].shape == batch["paraphrase_mask"].shape == (2, 6)
    assert batch["region_index"].tolist() == [0, 1]
    assert batch["region_mask"].shape == (2, 16, 16)
    assert batch["phrase"] == ["a man on the left"] * 2 + ["the dog"]
    assert batch["paraphrase"] == ["a guy on the left"] * 2 + [None]
    assert [path[-5:] for path in batch["image_path"]] == ["0.jpg", "1.jpg", "2.jpg"]
    assert batch["corrupt"] == 0


def test_a_batch_without_paraphrase_or_region_is_legal(root, tokenizer):
    data = TrainDataset([Record("2.jpg", None, None, (Phrase("the dog"),))], root, TRANSFORM)
    batch = TrainCollate(tokenizer, 25, 16)([data[0, 0]])
    assert batch["paraphrase_ids"].shape == batch["paraphrase_mask"].shape == (0, 1)
    assert batch["region_mask"].shape == (0, 16, 16)
    assert batch["paraphrase_index"].tolist() == batch["region_index"].tolist() == []
    assert batch["paraphrase_index"].dtype == torch.int64


def test_training_texts_are_cut_to_the_token_limit_and_evaluation_texts_are_not(tokenizer):
    text = " ".join(["dog"] * 40)
    cut, mask = tokenize(tokenizer, [text], 25)
    assert cut.shape == (1, 25)
    assert mask.all()
    assert tokenize(tokenizer, [text])[0].shape == (1, 41)


def test_a_text_is_cls_and_its_pieces_without_sep_and_one_without_words_cls_alone(tokenizer):
    ids, mask = tokenize(tokenizer, ["the man", ""])
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["[CLS]", "the", "man"]
    assert ids[1].tolist() == [tokenizer.cls_token_id] + [tokenizer.pad_token_id] * 2
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_all_phrases_of_an_image_make_one_evaluation_item(root):
    records = [
        record(0, "a man", split="testA", record_id="7"),
        record(1, "a dog", split="val", record_id="8"),
        record(0, "the red hat", boxes=(BOX, OTHER), split="testB", record_id="7"),
    ]
    data = EvalDataset(records, root, EvalTransform(32), 30)
    assert len(data) == 2
    sample = data[0]
    assert sample.phrase == ["a man", "the red hat"]
    assert sample.splits == ["testA", "testB"]
    assert sample.record_ids == ["7", "7"]
    assert sample.size == (60, 80)
    np.testing.assert_array_equal(sample.boxes[1], [BOX, OTHER])


def test_evaluation_boxes_stay_as_annotated_even_over_the_edge(root):
    over = (-3.0, 5.0, 40.0, 61.0)
    sample = EvalDataset([record(boxes=[over])], root, EvalTransform(32), 30)[0]
    np.testing.assert_array_equal(sample.boxes[0], [over])


def test_an_evaluation_phrase_whose_boxes_lie_outside_the_image_counts_and_is_named(root):
    outside = (90.0, 5.0, 99.0, 9.0)
    sample = EvalDataset([record(boxes=[outside])], root, EvalTransform(32), 30)[0]
    np.testing.assert_array_equal(sample.boxes[0], [outside])
    (fault,) = sample.faults
    assert fault.startswith("train.json[0]: ") and "has no area in the image" in fault


def test_evaluation_phrases_are_cut_to_the_benchmarks_words(root):
    data = EvalDataset([record(text="big " * 40)], root, EvalTransform(32), 30)
    assert data[0].phrase == [" ".join(["big"] * 30)]


def test_an_evaluation_batch_says_which_image_each_phrase_belongs_to(root, tokenizer):
    records = [record(1, "a dog"), record(0, "a man"), record(0, "the red hat")]
    data = EvalDataset(records, root, EvalTransform(32), 30)
    batch = EvalCollate(tokenizer)([data[0], data[1]])
    assert batch["image"].shape == (2, 3, 32, 32)
    assert batch["phrase_image"].tolist() == [0, 1, 1]
    assert batch["text_ids"].shape == (3, 4)
    assert batch["phrase"] == ["a dog", "a man", "the red hat"]
    assert batch["size"] == [(60, 80)] * 2
    assert batch["sample_index"] == [0, 1]
    rows = [pair for index in batch["sample_index"] for pair in data.expressions(index)]
    assert rows == [(one, one.phrases[0]) for one in records]
    for key in ("phrase_ids", "boxes", "splits", "record_ids"):
        assert len(batch[key]) == 3
