"""Referring samples and batches: what goes in, what is refused, what is padded."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from groundwork.dataset.loader import split_batches, split_loader, train_loader
from groundwork.dataset.orientation import OrientationSampler
from groundwork.dataset.referring.collate import ReferringCollate
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.sampler import EpochSampler
from groundwork.dataset.sources import read_splits
from groundwork.geometry import resize_mask
from tests.helpers.referring_batches import (
    CLS,
    DOG,
    HAT,
    MAN,
    SEP,
    TOKENIZER,
    TRANSFORM,
    batch_of,
    build,
    phrase,
    record,
    write_images,
)


@pytest.fixture(autouse=True)
def images(tmp_path):
    write_images(tmp_path)
    return tmp_path


# --- what a batch holds ---------------------------------------------------------------------------


def test_images_keep_their_aspect_and_are_padded_right_and_below(images):
    records = [record(MAN), record(MAN, image="tall.png")]
    batch = batch_of(records, images)
    assert batch["resized"] == [(32, 64), (64, 32)]
    assert batch["size"] == [(40, 80), (80, 40)]
    assert batch["image"].shape == (2, 3, 64, 64)
    assert batch["image_mask"][0, 32:].all() and not batch["image_mask"][0, :32].any()
    assert batch["image_mask"][1, :, 32:].all() and not batch["image_mask"][1, :, :32].any()
    assert (batch["image"][0, :, 32:] == 0).all() and batch["image"][0, :, :32].abs().min() > 0
    torch.testing.assert_close(
        batch["target_boxes"][0], torch.tensor([[24.45 / 80, 12.1 / 40, 32.9 / 80, 16.2 / 40]])
    )
    assert batch["boxes"][0].tolist() == [[8, 4, 40.9, 20.2]]
    assert "phrase_text_ids" not in batch, "its presence selects the mode of several phrases"


def test_the_square_rule_stretches_and_pads_nothing():
    transform = ReferringTransform(48, 48, "square")
    assert transform(np.zeros((20, 90, 3), np.uint8)).shape == (3, 48, 48)


def test_corners_are_cut_to_integers_only_where_asked(images):
    batch = batch_of([record(MAN)], images, integer_boxes=True)
    assert batch["boxes"][0].tolist() == [[8, 4, 40, 20]]
    torch.testing.assert_close(
        batch["target_boxes"][0], torch.tensor([[24 / 80, 12 / 40, 32 / 80, 16 / 40]])
    )


def test_boxes_end_at_the_last_pixel_only_where_asked(images):
    wide = replace(MAN, boxes=((-3.0, 2.0, 80.0, 39.5),))
    for asked, expected in ((False, [-3, 2, 80, 39.5]), (True, [0, 2, 79, 39])):
        for training in (False, True):
            dataset, _ = build([record(wide)], images, last_pixel_boxes=asked)
            sample = dataset[(0, 0) if training else 0]
            assert sample.boxes[0].tolist() == [expected]
            x, y, w, h = (sample.target_boxes[0] * torch.tensor([80, 40, 80, 40])).tolist()
            corners = [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
            assert corners == pytest.approx(expected, abs=1e-4)


def test_an_image_one_pixel_wide_has_boxes_without_area(images):
    Image.new("RGB", (20, 30)).save(images / "small.png")
    Image.new("RGB", (1, 30)).save(images / "line.png")
    square = ReferringTransform(16, 16, "square")
    box = replace(MAN, boxes=((0.0, 2.0, 1.0, 20.0),))
    for image, expected in (("small.png", [0, 2, 1, 20]), ("line.png", [0, 2, 0, 20])):
        text = ReferringText(TOKENIZER)
        rules = ReferringRules(image_root=str(images), last_pixel_boxes=True)
        dataset = ReferringDataset([record(box, image=image)], square, text, rules)
        assert dataset[0].boxes[0].tolist() == [expected]


def test_opencv_resizes_without_smoothing_before(images):
    image = np.asarray(Image.open(images / "wide.png"))
    transform = ReferringTransform(16, 16, "square", normalize=False, resampling="opencv")
    found = (transform(image) * 255).round().byte().permute(1, 2, 0).numpy()
    assert np.array_equal(found, cv2.resize(image, (16, 16), interpolation=cv2.INTER_LINEAR))
    smooth = replace(transform, resampling="torchvision")
    plain = Image.fromarray(image).resize((16, 16), Image.Resampling.BILINEAR)
    assert np.array_equal(
        (smooth(image) * 255).round().byte().permute(1, 2, 0).numpy(), np.asarray(plain)
    )
    assert smooth(image).std() < 0.8 * transform(image).std()


def test_masks_are_resized_by_the_rule_of_their_images():
    mask = np.arange(448)[:, None] % 2 == np.zeros((448, 4))
    rules = ("torchvision", "opencv")
    found = [ReferringTransform(640, 640, "square", resampling=r).mask(mask) for r in rules]
    for rule, one in zip(rules, found, strict=True):
        assert np.array_equal(one, resize_mask(mask, (640, 640), rule))
    assert not torch.equal(*found)


def test_a_wrong_stated_size_is_refused_or_not_looked_at(images):
    wrong = replace(record(MAN), width=400, height=300)
    with pytest.raises(ValueError, match="of 400x300 pixels, the file has 80x40"):
        batch_of([wrong], images)
    (found,), (expected,) = (
        batch_of([one], images, stated_sizes=False)["target_boxes"] for one in (wrong, record(MAN))
    )
    assert torch.equal(found, expected)


def test_one_sentence_of_an_entry_is_drawn_also_for_an_evaluation(images):
    records = [record(MAN, HAT, DOG) for _ in range(30)]
    dataset, _ = build(records, images, one_per_record=True)
    assert len(dataset) == 30
    drawn = [dataset[index].phrase for index in range(30)]
    assert {len(phrases) for phrases in drawn} == {1} and len({p for (p,) in drawn}) == 3
    again, _ = build(records, images, one_per_record=True)
    assert [again[index].phrase for index in range(30)] == drawn


def test_an_expression_of_nothing_that_has_targets_expects_nothing_and_learns_them(images):
    np.save(images / "m.npy", np.ones((40, 80), np.uint8))
    mixed = replace(MAN, masks=("m.npy",), matches_nothing=True)
    dataset, _ = build([record(mixed)], images, several_targets=True, masks=True)
    evaluated, trained = dataset[0], dataset[(0, 0)]
    assert not len(evaluated.boxes[0]) and not evaluated.masks[0].any()
    assert evaluated.target_boxes.shape == (0, 4) and not evaluated.target_mask.any()
    assert evaluated.target_masks.shape == (0, 32, 64)
    assert len(trained.target_boxes) == len(trained.target_masks) == 1
    assert trained.target_mask.all()
    without, _ = build([record(replace(mixed, masks=()))], images, several_targets=True, masks=True)
    assert not without[(0, 0)].target_mask.any()
    assert "'A man' has targets beside one of -1" in evaluated.faults[0]
    with pytest.raises(ValueError, match="--strict"):
        build([record(mixed)], images, several_targets=True, strict=True)[0][0]


def test_polygons_without_three_corners_are_named(images):
    shapes = "[[8,4,40,4,40,20,8,20],[1,1,2,2],[3,3]]"
    dataset, _ = build([record(replace(MAN, masks=(shapes,)))], images, masks=True)
    (fault,) = dataset[0].faults
    assert fault == "list.pth[3]: 'A man' has 2 polygons of fewer than three corners"


def test_training_batches_are_of_one_stated_orientation(images):
    sizes = [(80, 40), (40, 80), (40, 40), (80, 40), (80, 40)]
    records = [replace(record(MAN), width=w, height=h) for w, h in sizes]
    plain, collate = build(records, images, training=True)
    assert plain.landscape is None
    assert isinstance(train_loader(plain, collate, 2, workers=0).sampler, EpochSampler)
    dataset, collate = build(records, images, training=True, one_orientation=True)
    assert dataset.landscape.tolist() == [True, False, False, True, True]
    sampler = train_loader(dataset, collate, 2, workers=0).sampler
    assert isinstance(sampler, OrientationSampler) and sampler.steps_per_epoch == 3
    with pytest.raises(ValueError, match=r"list.pth\[3\]: width and height .* data.sampling"):
        build([record(MAN)], images, one_orientation=True)


def test_a_phrase_with_several_boxes_learns_the_box_around_them_and_keeps_all(images):
    two = replace(MAN, boxes=((0, 0, 8, 10), (40, 10, 60, 30)))
    batch = batch_of([record(two)], images)
    torch.testing.assert_close(batch["target_boxes"][0], torch.tensor([[0.375, 0.375, 0.75, 0.75]]))
    assert len(batch["boxes"][0]) == 2


def test_phrases_are_a_padded_set_with_their_places_in_the_sentence(images):
    batch = batch_of([record(MAN, HAT, DOG), record(HAT)], images, multi=True)
    assert batch["phrase_valid"].tolist() == [[True] * 3, [True, False, False]]
    assert batch["phrase_start"].tolist() == [[1, 4, 8], [4, 0, 0]]
    assert batch["phrase_stop"].tolist() == [[3, 7, 11], [7, 1, 1]]
    assert batch["phrase_text_ids"][1, 2].tolist()[:3] == [CLS, SEP, 0]
    assert batch["phrase_text_mask"][1, 2].sum() == 2
    assert batch["phrase_image"].tolist() == [0, 0, 0, 1]
    assert [len(boxes) for boxes in batch["target_boxes"]] == [3, 1]
    ids = batch["text_ids"][0, 4:7]
    assert TOKENIZER.decode(ids) == "a red hat"


def test_lengths_can_be_fixed_as_released(images):
    dataset, _ = build([record(MAN, HAT)], images, multi=True)
    collate = ReferringCollate(dataset.text, training=False, fixed_length=True, max_phrases=16)
    batch = collate([dataset[0]])
    assert batch["text_ids"].shape == (1, 40) and batch["phrase_text_ids"].shape == (1, 16, 22)


def test_masks_are_united_and_follow_the_image(images):
    for number, rows in enumerate((slice(0, 20), slice(30, 40))):
        mask = np.zeros((40, 80), np.uint8)
        mask[rows, :10] = 1
        np.save(images / f"{number}.npy", mask)
    two = replace(MAN, boxes=((0, 0, 10, 20), (0, 30, 10, 40)), masks=("0.npy", "1.npy"))
    batch = batch_of([record(two)], images, masks=True)
    assert batch["masks"][0].sum() == 300
    target = batch["target_mask"]
    assert target.shape == (1, 32, 64) and target.dtype == torch.bool
    assert target[0, :16, :8].all() and target[0, 24:, :8].all() and target.sum() == 24 * 8


def test_jitter_follows_from_seed_epoch_and_sample(images):
    text, rules = ReferringText(TOKENIZER), ReferringRules(image_root=str(images))
    transform = replace(TRANSFORM, jitter=True)
    dataset = ReferringDataset([record(MAN)], transform, text, rules)
    first, again, later = (dataset[(epoch, 0)].image for epoch in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, later)
    plain = ReferringDataset([record(MAN)], TRANSFORM, text, rules)
    assert torch.equal(dataset[0].image, plain[0].image), "an evaluation is never jittered"


# --- limits ---------------------------------------------------------------------------------------


def test_seventeen_phrases_become_two_samples(images):
    words = "a dog " * 17
    many = [phrase("a dog", 6 * index) for index in range(17)]
    dataset, collate = build([record(*many, sentence=words)], images, multi=True)
    batch = collate([dataset[0], dataset[1]])
    assert batch["phrase_valid"].sum(dim=1).tolist() == [16, 1]
    assert len(set(batch["expression_ids"])) == 17
    rows = [phrase for index in range(2) for _, phrase in dataset.expressions(index)]
    assert rows == many


def test_the_expression_of_a_sample_is_the_one_that_is_drawn_for_its_evaluation(images):
    records = [record(MAN, HAT, DOG) for _ in range(8)]
    dataset, _ = build(records, images, one_per_record=True)
    found = [phrase.text for index in range(8) for _, phrase in dataset.expressions(index)]
    assert found == [text for index in range(8) for text in dataset[index].phrase]
    assert len(set(found)) > 1


def test_an_expression_of_two_hundred_tokens_is_cut(images):
    batch = batch_of([record(phrase("dog " * 198))], images)
    assert batch["text_ids"].shape == (1, 40) and batch["text_ids"][0, -1] == SEP


def test_a_sentence_of_two_hundred_tokens_is_refused_before_training(images):
    long = record(phrase("dog", 0), sentence="dog " * 198)
    with pytest.raises(ValueError, match=r"list.pth\[3\]: the sentence has 200 tokens, data.max"):
        build([long], images, multi=True)


def test_a_phrase_that_is_not_in_its_sentence_is_refused(images):
    for wrong in (phrase("a zebra", 3), phrase("a zebra")):
        with pytest.raises(ValueError, match=r"list.pth\[3\]: phrase 'a zebra' is not in"):
            build([record(wrong)], images, multi=True)


def test_a_phrase_at_a_wrong_or_unknown_place_is_searched(images):
    records = [record(replace(HAT, start=start)) for start in (-1, 2, 11)]
    batch = batch_of(records, images, multi=True)
    assert batch["phrase_start"].tolist() == [[4]] * 3


@pytest.mark.parametrize("text", ["", "  ", "\u200b"])
def test_an_empty_expression_is_refused(images, text):
    with pytest.raises(ValueError, match=r"list.pth\[3\]: (the expression is empty|nothing of)"):
        batch_of([record(phrase(text))], images)


def test_sentences_are_needed_for_several_phrases(images):
    with pytest.raises(ValueError, match="data.multi_phrase: false"):
        build([record(MAN, sentence="")], images, multi=True)


def test_a_mask_of_another_size_than_its_image_is_refused(images):
    np.save(images / "m.npy", np.ones((39, 80), np.uint8))
    with pytest.raises(
        ValueError, match=r"list.pth\[3\]: 'A man': mask .*m.npy has shape \(39, 80"
    ):
        batch_of([record(replace(MAN, masks=("m.npy",)))], images, masks=True)


def test_phrases_without_box_or_wanted_mask_are_refused(images):
    with pytest.raises(ValueError, match="'A man' has no box"):
        build([record(replace(MAN, boxes=()))], images)
    with pytest.raises(ValueError, match="'A man' has no mask, and model.masks is true"):
        build([record(MAN)], images, masks=True)


def test_corrupt_images_are_refused_replaced_or_left_out(images):
    (images / "bad.png").write_bytes(b"no image")
    records = [record(MAN, image="bad.png"), record(HAT)]
    with pytest.raises(ValueError, match="data.tolerate_corrupt: true"):
        batch_of(records, images)
    dataset, collate = build(records, images, tolerate_corrupt=True)
    batch = collate([dataset[0], dataset[1]])
    assert batch["phrase"] == ["a red hat"] and batch["corrupt"] == [str(images / "bad.png")]
    sample = dataset[(0, 0)]
    assert sample.corrupt == 1 and sample.phrase == ["a red hat"]
    assert collate([dataset[0]])["image"].shape == (0, 3, 0, 0)


# --- formats --------------------------------------------------------------------------------------


def test_all_formats_say_the_same(tiny_data):
    files = {
        "tuples": tiny_data / "annotations_resc/unc+/unc+_val.pth",
        "refer": tiny_data / "refcoco+/refs(unc).p",
        "simrec": tiny_data / "anns/refcoco+.json",
        "instances": tiny_data / "annotations/refcocoplus-unc/instances.json",
    }
    said = {
        name: sorted(
            (phrase.text, tuple(map(float, phrase.boxes[0])))
            for one in read_splits({"val": [str(path)]}, name)
            for phrase in one.phrases
        )
        for name, path in files.items()
    }
    assert said["tuples"] and all(rows == said["tuples"] for rows in said.values())


def test_a_split_without_annotation_is_named(tiny_data, tmp_path):
    torch.save([], tmp_path / "x_val.pth")
    folder = tmp_path / "annotations_resc" / "unc"
    folder.mkdir(parents=True)
    torch.save([], folder / "unc_val.pth")
    with pytest.raises(ValueError, match="no expression of split 'val'"):
        read_splits({"val": [str(folder / "unc_val.pth")]}, "tuples")
    with pytest.raises(FileNotFoundError, match="unc_testC.pth"):
        read_splits({"testC": [str(folder / "unc_testC.pth")]}, "tuples")
    with pytest.raises(ValueError, match="no reference of split 'testC'"):
        read_splits({"testC": [str(tiny_data / "refcoco+/refs(unc).p")]}, "refer")


def test_record_tables_are_kept_and_found_again(tiny_data, tmp_path):
    splits = {"val": [str(tiny_data / "refcoco+/refs(unc).p")]}
    first = list(read_splits(splits, "refer", str(tmp_path)))
    assert list(read_splits(splits, "refer", str(tmp_path))) == first
    assert len(list(tmp_path.glob("*.arrow"))) == 1


def test_ranks_share_an_evaluation_without_duplicates(images):
    dataset, collate = build([record(MAN, HAT, DOG), record(MAN, HAT)], images)
    seen = []
    for rank in range(2):
        sizes = list(dataset.split_sizes.values())
        loader = split_loader(dataset, collate, 2, sizes, world_size=2, rank=rank, workers=0)
        seen += [index for batch in loader for index in batch["sample_index"]]
    assert sorted(seen) == list(range(5))


def test_no_batch_holds_two_splits(images):
    records = [replace(record(MAN, HAT, DOG), split="val"), replace(record(MAN), split="test")]
    dataset, collate = build(records, images)
    assert dataset.split_sizes == {"val": 3, "test": 1}
    batches = list(split_loader(dataset, collate, 2, [3, 1], workers=0))
    assert [batch["sample_index"] for batch in batches] == [[0, 1], [2], [3]]
    assert [set(batch["splits"]) for batch in batches] == [{"val"}, {"val"}, {"test"}]


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_processes_take_blocks_of_every_split(world):
    sizes = [5, 0, 1, 8]
    parts = [split_batches(sizes, 2, world_size=world, rank=rank) for rank in range(world)]
    visited = [index for part in parts for batch in part for index in batch]
    assert sorted(visited) == list(range(14))
    for start, size in ((0, 5), (5, 1), (6, 8)):
        inside = [i for i in visited if start <= i < start + size]
        assert inside == sorted(inside), "one block after the other"
    for batch in (batch for part in parts for batch in part):
        assert len(batch) <= 2
        assert len({sum(index >= start for start in (0, 5, 6)) for index in batch}) == 1


def test_boxes_and_masks_follow_a_jittered_scale(images):
    mask = np.zeros((40, 80), bool)
    mask[4:20, 8:41] = True
    np.save(images / "m.npy", mask)
    one = replace(MAN, boxes=((8, 4, 41, 20),), masks=("m.npy",))
    kinds = {"training": True, "scale_jitter": True, "masks": True, "several_targets": True}
    dataset, collate = build([record(one)], images, **kinds)
    batch = collate([dataset[epoch, 0] for epoch in range(12)])
    assert len({size for size in batch["size"]}) > 1
    for box, union, resized in zip(
        batch["target_boxes"], batch["target_mask"], batch["resized"], strict=True
    ):
        height, width = resized
        rows, columns = (union[:height, :width].any(dim=axis).nonzero() for axis in (1, 0))
        x, y, w, h = (box[0] * torch.tensor([width, height] * 2)).tolist()
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        expected = pytest.approx([x - w / 2, y - h / 2, x + w / 2, y + h / 2], abs=1.01)
        assert [edge.item() for edge in edges] == expected
