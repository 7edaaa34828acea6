"""Images and masks as other people leave them: what is drawn, what is refused, and that the check
before a run says the same."""

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import Pretrain_vg
from groundwork import geometry
from groundwork.dataset.formats import tuples
from groundwork.dataset.images import OPENERS, CorruptImageError, load_image
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.referring.dataset import ReferringDataset, ReferringRules
from groundwork.dataset.referring.text import ReferringText
from groundwork.dataset.referring.transforms import ReferringTransform
from groundwork.dataset.text import load_tokenizer
from tests.helpers.dataset_files import write_image, write_json
from tests.helpers.foreign import check, edit, several
from tests.helpers.script_runs import error_of, train

ENTRY = {"caption": "the red square", "bbox": [[5, 5, 30, 30]]}
MASKS = ("alvg/grefcoco", "tiny/alvg/grefcoco")


def own_list(data, path, **more):
    """vg/train.json holds four records, the last of them of an image of its own."""
    names = [entry["image"] for entry in json.loads((data / "vg" / "train.json").read_text())]
    names = list(dict.fromkeys(names))[:3]
    rows = [{"image": name, **ENTRY} for name in names]
    rows.append({"image": path.name, **ENTRY, **more})
    write_json(data / "vg" / "train.json", rows)


def check_list(data, *overrides):
    return check("tiny/Pretrain_vg_amc", data, *overrides)


def run_list(data, *overrides):
    values = [f"roots.embedded={data}", *overrides]
    return train(Pretrain_vg, "tiny/Pretrain_vg_amc", data / "run", overrides=values)


# --- masks ----------------------------------------------------------------------------------------

MALFORMED = [
    (
        {"size": [400, 500], "counts": [100, 50]},
        "run lengths of 150 pixels for an image of 400x500",
    ),
    ({"size": [6, 9], "counts": ""}, "run lengths of 0 pixels"),
    ({"size": [6, 9], "counts": []}, "run lengths of 0 pixels"),
    ({"size": [6, 9], "counts": [10, 300]}, "run lengths of 310 pixels"),
    ({"size": [6, 9], "counts": [60, -10, 4]}, "the negative count -10"),
    ({"size": [6, 9], "counts": [10.5, 43.5]}, "whole numbers"),
    ({"size": [6, 9], "counts": "!!"}, "damaged run lengths"),
    ({"size": [6, 9], "counts": "oooooooooooo0"}, "damaged run lengths"),
    ({"counts": [54]}, "have no size"),
    ({"size": [6], "counts": [54]}, "is [height, width]"),
    ({"size": [6, 9]}, "have no counts"),
    ([[1, 1, 5, 5]], "fewer than three corners"),
    ([[1, 1, 5, 1, 8, 1]], "lie on one line"),
    ([[2, 2, 2, 2, 2, 2]], "lie on one line"),
    ([[1, 1, 5, 1, 8, "x"]], "a polygon is a list of numbers"),
    ([[1, 1, 5, 1, 8, None]], "a polygon is a list of"),
    ([[1, 1, 5, 1, 8e9, 7]], "pixels away"),
    ([[1, 1, 5, 1, 8, 10**400]], "a polygon is a list of numbers"),
    ({"size": [10**6, 10**6], "counts": [10**12]}, "no image is so large"),
    ({"size": [4, 5], "counts": [2**62] * 4 + [20]}, "pixels for an image of 4x5"),
    ({"size": [4, 5], "counts": [10**400, 20]}, "whole numbers"),
    ([{"size": [6, 9], "counts": [54]}, {"size": [9, 6], "counts": [54]}], "different sizes"),
    ([{"size": [6, 9], "counts": [54]}, [1, 1, 5, 1, 5, 5]], "not a COCO segmentation"),
]


@pytest.mark.parametrize(("mask", "message"), MALFORMED)
def test_a_malformed_mask_is_named(mask, message):
    with pytest.raises(ValueError) as caught:
        geometry.decode_mask(json.dumps(mask), (6, 9))
    assert message in str(caught.value)


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("number", [0, 1, 3, 4, 8, 12, 17, 18, 19])
def test_the_check_finds_a_malformed_mask_and_names_its_record(number, name, data):
    mask, message = MALFORMED[number]
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: several(splits)["segmentation"][0].__setitem__(0, mask))
    errors, _, examples = check(name, data)
    assert errors["stops the run"] >= 1
    assert message in examples and f"{path}[train][" in examples


def test_run_lengths_are_drawn_whichever_form_they_have():
    rng = np.random.default_rng(0)
    for _ in range(50):
        size = tuple(int(side) for side in rng.integers(1, 40, 2))
        mask = rng.random(size) < rng.random()
        runs = geometry.mask_to_runs(mask)
        assert np.array_equal(geometry.decode_mask(json.dumps(runs), size), mask)
        flat = mask.ravel(order="F")
        edges = np.flatnonzero(np.diff(flat, prepend=False, append=not flat[-1]))
        counts = np.diff(edges, prepend=0).tolist()
        plain = {"size": size, "counts": counts}
        assert np.array_equal(geometry.decode_mask(json.dumps(plain), size), mask)
        both = [runs, geometry.mask_to_runs(~mask)]
        assert geometry.decode_mask(json.dumps(both), size).all()


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ([2, 2, 5, 5], "polygon of fewer than three corners"),
        ([2, 2, 5, 5, 9, 9], "polygon without an area"),
    ],
)
def test_degenerate_parts_beside_good_ones_are_dropped_and_counted(part, kind, data):
    square = [1.0, 1.0, 1.0, 5.0, 5.0, 5.0, 5.0, 1.0]
    alone = geometry.decode_mask(json.dumps([square]), (9, 9))
    assert np.array_equal(geometry.decode_mask(json.dumps([part, square]), (9, 9)), alone)
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: several(splits)["segmentation"][0].__setitem__(0, [part, square]))
    for name in MASKS:
        errors, warnings, _ = check(name, data)
        assert not errors and warnings[kind] == 1


def test_a_mask_outside_its_image_is_counted_and_said_by_the_run(data, tmp_path):
    outside = [[900, 900, 950, 900, 950, 950]]
    path = data / "annotations" / "grefcoco" / "instances.json"
    edit(path, lambda splits: several(splits)["segmentation"][0].__setitem__(0, outside))
    for name in MASKS:
        errors, warnings, examples = check(name, data)
        assert not errors and warnings["mask without a pixel"] == 1
        assert "has no pixel in" in examples
    write_image(tmp_path / "1.jpg", (60, 80))
    phrase = Phrase("a cup", boxes=((1, 1, 9, 9),), masks=(json.dumps(outside),))
    record = Record("1.jpg", 80, 60, (phrase,), "val", "1", "list[0]")
    for strict in (False, True):
        rules = ReferringRules(image_root=str(tmp_path), masks=True, strict=strict)
        text = ReferringText(load_tokenizer("bert-base-uncased"))
        samples = ReferringDataset([record], ReferringTransform(48, 48), text, rules)
        if strict:
            with pytest.raises(ValueError, match=r"list\[0\]: a mask of 'a cup' has no pixel"):
                samples[0]
        else:
            assert "list[0]: a mask of 'a cup' has no pixel" in samples[0].faults[0]


# --- pixels ---------------------------------------------------------------------------------------


def tiff(path, values, bits):
    """A grey TIFF of unsigned numbers of `bits` bits, packed as cameras of 12 bits write it."""
    height, width = values.shape
    text = "".join(f"{value:0{bits}b}" for value in values.ravel())
    pixels = int(text, 2).to_bytes(len(text) // 8, "big")
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1),
            (273, 4, 0), (277, 3, 1), (278, 4, height), (279, 4, len(pixels))]  # fmt: skip
    start = 8 + 2 + 12 * len(tags) + 4
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    for tag, kind, value in tags:
        number = struct.pack(
            "<HH" if kind == 3 else "<I", start if tag == 273 else value, *[0] * (kind == 3)
        )
        head += struct.pack("<HHI", tag, kind, 1) + number
    path.write_bytes(head + struct.pack("<I", 0) + pixels)
    return path


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("bits", [12, 16])
def test_more_than_eight_bits_are_scaled_and_the_check_says_so(bits, opener, data):
    values = np.random.default_rng(0).integers(0, 1 << bits, (50, 60))
    path = data / "images" / "deep.tiff"
    if bits == 12:
        tiff(path, values, 12)
    else:
        cv2.imwrite(str(path), values.astype(np.uint16))
    pixels = load_image(path, opener=opener)
    assert np.array_equal(pixels, np.repeat((values >> (bits - 8))[..., None], 3, axis=2))
    own_list(data, path)
    errors, warnings, examples = check_list(data, f"data.opener={opener}")
    assert not errors and warnings["more than 8 bits a channel"] == 1
    assert f"deep.tiff: {bits} bits a channel, divided by {1 << (bits - 8)}" in examples


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", [np.float32, np.int32])
def test_floats_and_numbers_of_32_bits_are_refused_by_name(kind, opener, data):
    path = data / "images" / "deep.tiff"
    Image.fromarray((np.ones((50, 60)) / 2).astype(kind)).save(path)
    expected = "of 32 bits, mode"
    with pytest.raises(CorruptImageError, match=rf"deep\.tiff cannot be decoded .*{expected}"):
        load_image(path, opener=opener)
    own_list(data, path)
    for more in ((), ("data.tolerate_corrupt=true",)):
        errors, warnings, examples = check_list(data, f"data.opener={opener}", *more)
        found = warnings if more else errors
        assert found == {**found, "not decodable": 1} and expected in examples


def test_a_png_with_megabytes_of_text_is_named_and_tolerated_or_read(data):
    path = data / "images" / "text.png"
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", "a" * (2 << 20), zip=True)
    Image.new("RGB", (60, 50)).save(path, pnginfo=texts)
    own_list(data, path)
    shown = "data.opener=shown"
    errors, _, examples = check_list(data, shown)
    expected = f"train.json[3]: image {path} cannot be decoded"
    assert errors == {"not decodable": 1} and expected in examples
    assert expected in error_of(lambda: run_list(data, shown))
    assert run_list(data, shown, "data.tolerate_corrupt=true")
    assert not check_list(data, shown, "data.tolerate_corrupt=true")[0]
    for opener in ("pillow", "opencv"):
        assert load_image(path, opener=opener).shape == (50, 60, 3)
        assert not check_list(data, f"data.opener={opener}")[0]


def test_an_image_of_which_resizing_leaves_nothing_is_named_and_tolerated(data, tmp_path):
    write_image(tmp_path / "line.png", (1, 2000))
    write_image(tmp_path / "good.png", (60, 80))
    phrase = Phrase("a cup", boxes=((0, 0, 9, 1),))
    records = [
        Record(name, None, None, (phrase,), "val", name, f"list[{index}]")
        for index, name in enumerate(("line.png", "good.png"))
    ]
    text = ReferringText(load_tokenizer("bert-base-uncased"))
    for tolerant in (False, True):
        rules = ReferringRules(image_root=str(tmp_path), tolerate_corrupt=tolerant)
        samples = ReferringDataset(records, ReferringTransform(), text, rules)
        if tolerant:
            assert samples[0].image is None and samples[0, 0].corrupt == 1
        else:
            with pytest.raises(
                CorruptImageError, match=r"list\[0\]: image .*line\.png: of its 2000x1"
            ):
                samples[0]
    (used, *_) = tuples.read(data / "annotations_resc" / "unc+" / "unc+_val.pth")
    write_image(next((data / "images").rglob(Path(used.image).name)), (1, 2000))
    errors, _, examples = check("reftr", data)
    assert errors["nothing left when resized"] >= 1 and "of its 2000x1 pixels" in examples


# --- EXIF -----------------------------------------------------------------------------------------


def turned(path, size, orientation=6):
    image = Image.new("RGB", size[::-1])
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(path, exif=exif)
    return path


def test_boxes_for_the_other_way_up_name_exif_and_the_other_opener(data):
    path = turned(data / "images" / "turned.jpg", (60, 90))  # stored 90 wide, shown 60 wide
    remedy = "an EXIF orientation does: data.opener: pillow reads images as they are stored"
    own_list(data, path, bbox=[[10, 10, 50, 85]])  # for the image as shown
    _, warnings, examples = check_list(data, "data.opener=pillow")
    assert warnings["turned by its EXIF orientation"] == warnings["box sticks out"] == 1
    assert "as stored; if they are for the image as shown, set data.opener: shown" in examples
    assert remedy in examples
    _, warnings, examples = check_list(data, "data.opener=shown")
    assert "box sticks out" not in warnings
    assert "as shown; if they are for the image as stored, set data.opener: pillow" in examples


def test_a_stated_size_of_exchanged_sides_names_exif(tmp_path):
    turned(tmp_path / "turned.jpg", (60, 90))
    record = Record(
        "turned.jpg", 60, 90, (Phrase("a cup", boxes=((1, 1, 9, 9),)),), source="list[0]"
    )
    text = ReferringText(load_tokenizer("bert-base-uncased"))
    for opener, good in (("pillow", False), ("opencv", True), ("shown", True)):
        rules = ReferringRules(image_root=str(tmp_path), opener=opener)
        samples = ReferringDataset([record], ReferringTransform(48, 48), text, rules)
        if good:
            assert samples[0].size == (90, 60)
        else:
            with pytest.raises(
                ValueError, match=r"list\[0\].*which is what an EXIF orientation does"
            ):
                samples[0]
