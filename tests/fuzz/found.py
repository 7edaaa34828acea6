"""Inputs that this search met and that ended badly once; each is read or refused clearly today."""

from collections.abc import Callable
from typing import Any, NamedTuple

DEEP = b"[" * 100_000
DIGITS = b"[" + b"9" * 10_000 + b"]"
# A graph whose only operator has a name that is no UTF-8.
GRAPH = (
    b'\x08\n:2\n\x0b\n\x01x\x12\x01y"\x03A\xf1s\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02'
    b"\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\x14"
)
ARCHIVE = b"PK\x03\x04" + bytes(60)


class Found(NamedTuple):
    """reader and its file. change: the bytes that were there, or what makes them of the sound
    content. ended: how it ended once."""

    reader: str
    file: str
    change: bytes | Callable[[Any], Any]
    ended: str


def _set(value: Any, *path: Any) -> Callable[[Any], Any]:
    """Puts a value at a place of the content."""

    def change(content: Any) -> Any:
        holder = content
        for key in path[:-1]:
            holder = holder[key]
        holder[path[-1]] = value
        return content

    return change


FOUND = (
    Found("vg", "vg/train.json", DEEP, "RecursionError"),
    Found("vg", "vg/train.json", DIGITS, "ValueError of no file"),
    Found("vg", "vg/train.json", _set("\ud800", 0, "caption"), "UnicodeEncodeError"),
    Found(
        "tuples",
        "annotations_resc/unc+/unc+_val.pth",
        lambda content: [[*content[0][:2], 10**400, *content[0][3:]], *content[1:]],
        "OverflowError",
    ),
    Found("simrec", "anns/refcoco+.json", DEEP, "RecursionError"),
    Found("simrec", "anns/refcoco+.json", b"9" * 10_000, "ValueError of no file"),
    Found(
        "simrec", "anns/refcoco+.json", _set("9" * 5000, "val", 0, "iid"), "ValueError of no file"
    ),
    Found(
        "instances",
        "annotations/grefcoco/instances.json",
        _set(10**12, "val", 0, "width"),
        "ArrowInvalid",
    ),
    Found("flickr30k", "flickr30k/val.txt", DEEP, "message of 100,111 characters"),
    Found("labels", "labels.jsonl", DEEP, "RecursionError"),
    Found("labels", "labels.jsonl", _set([1], 0, "record_id"), "ArrowTypeError"),
    Found(
        "test list of RefCLEF",
        "refclef/refs(berkeley).p",
        _set(7, 0, "sentences"),
        "TypeError",
    ),
    Found("Flickr30k Entities", "flickr30k_entities/val.txt", b"1" * 300, "OSError"),
    Found("captions of COCO", "captions.json", _set(None, "annotations"), "TypeError"),
    Found("captions of COCO", "captions.json", _set([7], "images", 0, "flickr_url"), "TypeError"),
    Found(
        "captions of COCO",
        "captions.json",
        lambda content: {"images": [], "a\nb": content},
        "message of several lines",
    ),
    Found(
        "grefcoco",
        "grefcoco/instances.json",
        _set(None, "annotations", 15, "segmentation"),
        "ValueError of no file",
    ),
    Found(
        "checkpoints",
        "old.pth",
        b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}q\x00(X\r\x00\x00\xe5",
        "MemoryError",
    ),
    Found("configurations", "tiny/reftr/refcoco+.yaml", DEEP, "RecursionError"),
    Found("configurations", "tiny/reftr/refcoco+.yaml", b"9" * 10_000, "ValueError of no file"),
    Found("configurations", "tiny/refclip/refcoco+.yaml", _set(True, "data"), "TypeError"),
    Found(
        "configurations",
        "tiny/refclip/refcoco+.yaml",
        _set("refcoco+.yaml", "base"),
        "RecursionError",
    ),
    Found("configurations", "tiny/Pretrain_vg_amc.yaml", _set(1.8, "stages"), "TypeError"),
    Found("configurations", "tiny/Pretrain_vg_amc.yaml", _set("a" * 300, "base"), "OSError"),
    Found(
        "published configurations",
        "selfeq_Grounding_refcoco.yaml",
        _set({"a": 1}, "bert_config"),
        "TypeError",
    ),
    Found("published configurations", "refclip_refcoco.yaml", _set([1], "TRAIN"), "AttributeError"),
    Found(
        "published configurations",
        "refclip_refcoco.yaml",
        _set([1, 2, 3], "DATA", "INPUT_SHAPE"),
        "ValueError of no file",
    ),
    Found("masks", "mask.npy", ARCHIVE, "BadZipFile"),
    Found("words", "matrix.npy", ARCHIVE, "BadZipFile"),
    Found("words", "pieces.spm", b"", "RuntimeError"),
    Found("words", "vectors.txt", b"red 0.5 0..5 0.5 0.5\n", "ValueError of no file"),
    Found("exported ONNX files", "graph.onnx", GRAPH, "UnicodeDecodeError"),
    Found("lists of questions", "phrases.jsonl", DEEP, "RecursionError"),
    Found("archives", "annotations.tar.xz", b"\xfd7zXZ\x00" + bytes(40), "LZMAError"),
    Found("results, predictions and logs", "results.json", b'{"a": 1}', "ValueError of no file"),
    Found("results, predictions and logs", "log.txt", DEEP + b"\n", "RecursionError"),
)
