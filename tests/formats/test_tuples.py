"""The `.pth` tuple lists of ReSC, TransVG and RefTR, and pickles that must not run."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import torch

from groundwork.dataset.formats import plain_pickle, tuples
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.sources import read_splits

COCO = "COCO_train2014_000000581857.jpg"


class Malicious:
    def __reduce__(self):
        return os.system, ("echo owned",)


def save(path, rows, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(rows, path, **options)
    return path


@pytest.mark.parametrize(
    ("folder", "name", "box"),
    [
        ("unc", "unc_testA", (10, 20, 40, 60)),
        ("unc+", "unc+_val", (10, 20, 40, 60)),
        ("gref", "gref_train", (10, 20, 40, 60)),
        ("gref_umd", "gref_umd_test", (10, 20, 40, 60)),
        ("referit", "referit_trainval", (10, 20, 30, 40)),
    ],
)
def test_boxes_are_read_by_the_convention_of_their_folder(tmp_path, folder, name, box):
    row = (COCO, 7, [10, 20, 30, 40], "the lady", [("r1", ["lady"])])
    (record,) = tuples.read(save(tmp_path / "annotations_resc" / folder / f"{name}.pth", [row]))
    assert record.phrases == (Phrase("the lady", "7", (box,)),)
    assert record.split == name.rsplit("_", 1)[1]
    if folder != "referit":
        assert (record.record_id, record.image_ids) == ("581857", ("coco:581857",))


@pytest.mark.parametrize(
    ("folder", "plain", "cut"),
    [
        ("unc", (10.6, 20.7, 40.4, 61.4), (10, 20, 39, 60)),
        ("referit", (10.6, 20.7, 29.8, 40.7), (10, 20, 29, 40)),
    ],
)
def test_integers_are_what_is_stated_cut_towards_zero(tmp_path, folder, plain, cut):
    row = (COCO, 7, [10.6, 20.7, 29.8, 40.7], "the lady", [])
    path = save(tmp_path / "annotations_resc" / folder / "x_val.pth", [row])
    assert next(tuples.read(path)).phrases[0].boxes[0] == pytest.approx(plain)
    assert next(tuples.read(path, integers=True)).phrases[0].boxes == (cut,)
    assert read_splits({"val": [path]}, "tuples", integer_boxes=True)[0].phrases[0].boxes == (cut,)


def test_integers_of_negative_corners_and_thin_boxes(tmp_path):
    rows = [(COCO, 7, box, "x", []) for box in ([-3.4, -0.6, 10.9, 5.8], [5.2, 6.9, 0.7, 40.0])]
    path = save(tmp_path / "annotations_resc/unc/unc_val.pth", rows)
    boxes = [record.phrases[0].boxes[0] for record in tuples.read(path, integers=True)]
    assert boxes == [(-3, 0, 7, 5), (5, 6, 5, 46)]


def test_written_extents_are_those_they_were_read_from(tmp_path):
    boxes = [[round(1.3 + 0.1 * i, 1), 2.7, 3.0, round(0.1 * i, 1)] for i in range(50)]
    rows = [(COCO, i, box, "x", []) for i, box in enumerate(boxes)]
    path = save(tmp_path / "annotations_resc/unc/unc_val.pth", rows)
    tuples.write(tuples.read(path), tmp_path / "unc_val.pth", "unc")
    assert [row[2] for row in torch.load(tmp_path / "unc_val.pth")] == boxes


def test_a_cache_of_records_tells_integers_from_what_is_stated(tmp_path):
    row = (COCO, 7, [10.6, 20.7, 29.8, 40.7], "the lady", [])
    files = {"val": [save(tmp_path / "annotations_resc/unc/unc_val.pth", [row])]}
    tables = [
        read_splits(files, "tuples", str(tmp_path / "cache"), integer_boxes=cut)
        for cut in (False, True, False)
    ]
    assert [table[0].phrases[0].boxes[0][0] for table in tables] == [10.6, 10, 10.6]


def test_short_lists_masks_and_sentences_are_told_apart_by_their_folder(tmp_path):
    box = np.array([10, 20, 30, 40])
    flickr = save(
        tmp_path / "annotations_resc/flickr/flickr_test.pth", [("36979.jpg", box, "a man")]
    )
    vg = save(tmp_path / "annotations_resc/vg/vg_all.pth", [("2337.jpg", torch.tensor(box), "sky")])
    res = save(
        tmp_path / "refcoco/anns/refcoco/refcoco_unc_val.pth", [(COCO, "5.npy", box, "lady")]
    )
    sentence = "A man holds a dog."
    row = ("36979.jpg", [0, 12], [box, [1, 2, 3, 4]], ["A man", "a dog"], None, sentence)
    multi = save(tmp_path / "annotations/flickr/flickr_train.pth", [row])
    (flickr,), (vg,), (res,), (multi,) = map(tuples.read, (flickr, vg, res, multi))
    assert flickr.phrases[0].boxes == ((10, 20, 30, 40),)
    assert vg.phrases[0].boxes == ((10, 20, 40, 60),)
    assert (flickr.image_ids, vg.image_ids) == (("flickr:36979",), ("vg:2337",))
    assert res.phrases[0].masks == ("5.npy",)
    assert multi.sentence == sentence
    assert [(p.text, p.start) for p in multi.phrases] == [("A man", 0), ("a dog", 12)]


@pytest.mark.parametrize(
    ("layout", "row", "message"),
    [
        ("vg", ("1.jpg", [1, 2, 3, 4]), "expected 3 fields"),
        ("vg", ("1.jpg", [1, 2, 3], "sky"), "four finite numbers"),
        ("vg", ("1.jpg", "big", "sky"), "not four numbers"),
        ("vg", ("1.jpg", [1, 2, 3, 4], None), "phrase must be a text"),
        ("flickr", ("1.jpg", [50, 2, 3, 4], "sky"), "another layout"),
        ("res", (COCO, "../5.npy", [1, 2, 3, 4], "sky"), "leads out of the folder"),
        ("res", (COCO, "/5.npy", [1, 2, 3, 4], "sky"), "leads out of the folder"),
        ("multi", ("1.jpg", [0], [], ["a"], None, "a"), "as many"),
        ("multi", ("1.jpg", [9], [[1, 2, 3, 4]], ["a"], None, "a"), "not in the sentence"),
    ],
)
def test_a_malformed_tuple_is_named(tmp_path, layout, row, message):
    path = save(tmp_path / "list.pth", [row])
    with pytest.raises(ValueError, match=rf"list\.pth\[0\]: .*{message}"):
        list(tuples.read(path, layout))


def test_a_list_outside_the_published_folders_needs_its_layout(tmp_path):
    path = save(tmp_path / "list.pth", [])
    with pytest.raises(ValueError, match="pass layout, one of unc, "):
        list(tuples.read(path))
    with pytest.raises(FileNotFoundError, match="as its authors packed it"):
        list(tuples.read(tmp_path / "none.pth", "vg"))


def test_what_a_layout_cannot_hold_is_not_written(tmp_path):
    phrase = Phrase("dogs", boxes=((0, 0, 1, 1), (5, 6, 7, 8)))
    record = Record("1.jpg", None, None, (phrase,), source="x[3]")
    with pytest.raises(ValueError, match=r"x\[3\]: 'dogs' has 2 boxes"):
        tuples.write([record], tmp_path / "a.pth", "flickr")
    with pytest.raises(ValueError, match="0 masks"):
        tuples.write([record], tmp_path / "a.pth", "res", unite_boxes=True)
    with pytest.raises(ValueError, match="place in it"):
        tuples.write([record], tmp_path / "a.pth", "multi", unite_boxes=True)
    assert not list(tmp_path.iterdir())
    counts = tuples.write([record], tmp_path / "a.pth", "flickr", unite_boxes=True)
    assert counts == {"tuples": 1, "phrases": 1, "united": 1}
    (back,) = tuples.read(tmp_path / "a.pth", "flickr")
    assert back.phrases[0].boxes == ((0, 0, 7, 8),)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("beside", [[], [torch.ones(2)]], ids=["alone", "after a tensor"])
def test_a_list_that_would_run_code_is_refused_and_not_run(tmp_path, capfd, zipped, beside):
    rows = [*beside, Malicious()]
    path = save(tmp_path / "vg_all.pth", rows, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=r"vg_all\.pth is not a pickle of plain data.*posix.system"
    ):
        list(tuples.read(path, "vg"))
    assert "owned" not in capfd.readouterr().out


CONTENT = [
    ("a.jpg", np.int64(3), np.float32(2.5), np.arange(4.0), np.array([[1, 2]], dtype=">i4")),
    ("é", b"\xff", b"", np.bool_(True), np.str_("word"), np.array(["ab", "c"]), np.array([b"xy"])),
    (np.array([None, "x", [1]], dtype=object), np.zeros((2, 3), order="F"), 2**70, {"a": {1}}),
]


def assert_same(read, written):
    for found, expected in zip(read, written, strict=True):
        for one, other in zip(found, expected, strict=True):
            assert np.array_equal(one, other)
            assert np.asarray(one).dtype.kind == np.asarray(other).dtype.kind


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numpy_content_is_read_at_every_protocol_and_in_both_torch_layouts(tmp_path, protocol):
    (tmp_path / "a.p").write_bytes(pickle.dumps(CONTENT, protocol=protocol))
    assert_same(plain_pickle.read(tmp_path / "a.p"), CONTENT)
    for zipped in (True, False):
        options = {"pickle_protocol": protocol, "_use_new_zipfile_serialization": zipped}
        path = save(tmp_path / "a.pth", CONTENT, **options)
        assert_same(plain_pickle.read(path), CONTENT)


def numpy_pickle(module, code, state, content):
    """Python 2's protocol-2 pickle of a NumPy scalar, byte for byte."""
    kind = b"cnumpy\ndtype\nU" + bytes([len(code)]) + code + b"K\x00K\x01\x87R(" + state + b"tb"
    value = b"U" + bytes([len(content)]) + content
    return b"\x80\x02c" + module + b".multiarray\nscalar\n" + kind + value + b"\x86R."


PLAIN_STATE = b"K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00"


@pytest.mark.parametrize("module", [b"numpy.core", b"numpy._core"])
def test_a_numpy_number_of_python2_is_read(tmp_path, module):
    number = (1234).to_bytes(2, "little") + b"\x00\x80"  # bytes above 127, as Latin-1
    (tmp_path / "a.p").write_bytes(numpy_pickle(module, b"i4", PLAIN_STATE, number))
    assert plain_pickle.read(tmp_path / "a.p") == np.frombuffer(number, "<i4")[0]


@pytest.mark.parametrize(
    ("code", "state", "content"),
    [
        (b"O8", PLAIN_STATE, b"\x01" * 8),  # bytes would become a pointer to an object
        (b"V8", PLAIN_STATE, b"\x01" * 8),
        (b"i8", PLAIN_STATE, b"\x01"),  # fewer bytes than the number has
        (b"i8", PLAIN_STATE.replace(b"NNN", b"NN)"), b"\x01" * 8),  # fields
    ],
)
def test_numpy_types_that_could_break_out_are_refused(tmp_path, code, state, content):
    (tmp_path / "a.p").write_bytes(numpy_pickle(b"numpy.core", code, state, content))
    with pytest.raises(ValueError, match=r"a\.p is not a pickle of plain data"):
        plain_pickle.read(tmp_path / "a.p")


def test_damaged_files_of_torch_are_named(tmp_path):
    path = save(tmp_path / "a.pth", [("a.jpg", torch.ones(4))])
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    with pytest.raises(ValueError, match=r"a\.pth .*fetch it again"):
        plain_pickle.read(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("other.txt", "no pickle")
    with pytest.raises(ValueError, match=r"a\.pth"):
        plain_pickle.read(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        # A function's defaults, set as the state of the function itself.
        (b"c_codecs\nencode\n(N}U\x0c__defaults__K\x01K\x02\x86stb.", "changes a function"),
        (b"c__builtin__\nbytes\n}U\x01aK\x01sb.", "changes a function"),
        (b"cnumpy\nndarray\n(K\x08\x85tR.", "makes an array"),
        (b"c_codecs\nencode\n(U\x01aU\x05rot13tR.", "encodes text"),
        (b"cnumpy.core.multiarray\nscalar\n(U\x02i8U\x01atR.", "gives str as the type"),
        (b"cbuiltins\neval\n(U\x01atR.", "asks for builtins.eval"),
    ],
)
def test_harmless_names_cannot_be_turned_into_tools(tmp_path, content, message):
    (tmp_path / "a.p").write_bytes(b"\x80\x02" + content)
    with pytest.raises(ValueError, match=rf"a\.p is not a pickle of plain data.*{message}"):
        plain_pickle.read(tmp_path / "a.p")
