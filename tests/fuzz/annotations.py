"""The readers of annotation files, each with sound files of the embedded data set."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from groundwork.dataset import detection
from groundwork.dataset.formats import (
    detections,
    entities,
    finetune_grefcoco,
    flickr30k,
    grefcoco,
    labels,
    paraphrases,
    phrases,
    refer,
    visual_genome,
)
from groundwork.dataset.formats.labels import Label
from groundwork.dataset.leakage import Links
from groundwork.dataset.record import Record, RecordTable
from groundwork.dataset.sources import read_splits
from groundwork.tools import prepare_coco
from groundwork.tools.own.translate import open_list
from tests.fuzz.codecs import JSON, LINES, PICKLE, TORCH, Codec
from tests.helpers.dataset_files import write_image, write_json


@dataclass(frozen=True)
class Reader:
    """files: relative to the folder of the sample, each with how its values are changed; None: in
    its bytes only. read: (folder, the changed file) -> reads all. sample: (embedded data set,
    folder) -> writes the sound files. corpus: further files, in the place of the first."""

    name: str
    files: Mapping[str, Codec | None]
    read: Callable[[Path, Path], object]
    sample: Callable[[Path, Path], None] | None = None
    corpus: Callable[[], Iterable[bytes]] = tuple

    def prepare(self, embedded: Path, folder: Path) -> None:
        """Puts sound files into the folder."""
        if self.sample is not None:
            self.sample(embedded, folder)
            return
        for name in self.files:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(embedded / name, folder / name)


def table(records: Iterable[Record]) -> list[Record]:
    """The records as a run holds them."""
    return list(RecordTable.from_records(records))


def listed(form: str, files: Mapping[str, Sequence[str]], codec: Codec = JSON) -> Reader:
    """A list that a configuration names with its format; `files`: the file -> splits in it."""

    def read(folder: Path, file: Path) -> object:
        splits = files[file.relative_to(folder).as_posix()]
        return list(read_splits({split: [str(file)] for split in splits}, form))

    return Reader(form, dict.fromkeys(files, codec), read)


def _refer(folder: Path, _file: Path) -> object:
    found = folder / "refcoco+"
    return table(refer.read(found / "refs(unc).p", found / "instances.json"))


def _test_list(folder: Path, _file: Path) -> object:
    read = refer.read_refclef if (folder / "refclef").is_dir() else refer.read_refcoco_plus
    (name,) = (path.name for path in folder.iterdir())
    return table(read(folder / name / "test.json", folder))


def _grefcoco(folder: Path, _file: Path) -> object:
    found = folder / "grefcoco"
    return table(grefcoco.read(found / "grefs(unc).json", found / "instances.json"))


def _entities(folder: Path, _file: Path) -> object:
    found = folder / "flickr30k_entities"
    return table(entities.read(found, flickr30k.read_ids(found / "val.txt"), "val"))


def _visual_genome(folder: Path, _file: Path) -> object:
    found = folder / "visual_genome"
    Links().read_image_data(found / "image_data.json")
    return table(visual_genome.read(found)), table(visual_genome.read_attributes(found))


def _label_sample(_embedded: Path, folder: Path) -> None:
    rows = [
        Label(image=f"{index // 2}.jpg", width=80, height=60, text="the red square",
              box=(1.0, 2.0, 30.5, 40.0), record_id="7", phrase_id="1", image_ids=("coco:7",),
              objectness=0.5, start=index)
        for index in range(4)
    ]  # fmt: skip
    labels.write(rows, folder / "labels.jsonl")


def _caption_sample(_embedded: Path, folder: Path) -> None:
    address = "http://farm1.static.flickr.com/1/1000092795_a.jpg"
    images = [{"id": i, "file_name": f"{i}.jpg", "flickr_url": address} for i in range(3)]
    captions = [{"id": i, "image_id": i % 3, "caption": "A red cup."} for i in range(5)]
    write_json(folder / "captions.json", {"images": images, "annotations": captions})


def _captions(_folder: Path, file: Path) -> object:
    Links().read_coco_images(file)
    return table(prepare_coco.read(file, "train2014"))


def _own_records(file: Path) -> Iterator[Record]:
    faults: list[str] = []
    for source, entry in open_list(file, faults).lines:
        yield phrases.record_of(entry, source)
    if faults:
        raise ValueError(faults[0])


def _own_lists(_embedded: Path, folder: Path) -> None:
    write_image(folder / "0.jpg")
    row = {"image": "0.jpg", "phrase": "the red kite", "box": [1, 2, 30, 40]}
    several = {"image": "0.jpg", "phrase": "kites", "boxes": [[1, 2, 30, 40], [5, 5, 9, 9]]}
    masked = {"image": "0.jpg", "phrase": "a kite", "mask": [[1, 1, 9, 1, 9, 9]]}
    nothing = {"image": "0.jpg", "phrase": "no kite", "box": None}
    lines = "".join(json.dumps(one) + "\n" for one in (row, several, masked, nothing))
    (folder / "own.jsonl").write_text(lines)
    (folder / "own.csv").write_text('image,phrase,x1,y1,x2,y2\n0.jpg,"a, red kite",1,2,30,40\n')
    image = {"id": 1, "file_name": "0.jpg", "width": 80, "height": 60}
    boxed = {"id": 1, "image_id": 1, "bbox": [1, 2, 30, 40], "phrase": "a kite"}
    write_json(folder / "coco.json", {"images": [image], "annotations": [boxed]})
    captioned = {**image, "caption": "a red kite"}
    placed = {"id": 1, "image_id": 1, "bbox": [1, 2, 30, 40], "tokens_positive": [[2, 10]]}
    write_json(folder / "mdetr.json", {"images": [captioned], "annotations": [placed]})


TUPLES = (
    "annotations_resc/unc+/unc+_val.pth",
    "annotations_resc/referit/referit_val.pth",
    "annotations_resc/flickr/flickr_val.pth",
    "annotations_resc/vg/vg_all.pth",
    "refcoco/anns/refcoco+/refcoco+_unc_val.pth",
    "annotations/flickr/flickr_val.pth",
)


def _files(folder: str, *names: str, codec: Codec | None = JSON) -> dict[str, Any]:
    return {f"{folder}/{name}": codec for name in names}


READERS: tuple[Reader, ...] = (
    listed("vg", {"vg/train.json": ["train"], "vg/relation.json": ["train"]}),
    listed("coco", {"coco/relation.json": ["train"]}),
    listed("tuples", dict.fromkeys(TUPLES, ["val"]), TORCH),
    listed("simrec", {"anns/refcoco+.json": ["train", "val"], "anns/merged.json": ["train"]}),
    listed(
        "instances",
        {
            "annotations/grefcoco/instances.json": ["train", "val"],
            "annotations/refcocoplus-unc/instances.json": ["train", "testA"],
        },
    ),
    Reader(
        "flickr30k",
        _files("flickr30k", "bounding_boxes_val.json", "sentences_val.json")
        | _files("flickr30k", "val.txt", codec=None),
        lambda folder, _file: list(read_splits({"val": [str(folder / "flickr30k")]}, "flickr30k")),
    ),
    Reader(
        "labels",
        {"labels.jsonl": LINES},
        lambda _folder, file: list(read_splits({"train": [str(file)]}, "labels")),
        _label_sample,
    ),
    Reader(
        "refer",
        {"refcoco+/refs(unc).p": PICKLE, "refcoco+/instances.json": JSON},
        _refer,
    ),
    Reader(
        "test list of RefCOCO+",
        {
            "refcoco+/test.json": JSON,
            "refcoco+/refs(unc).p": PICKLE,
            "refcoco+/instances.json": JSON,
        },
        _test_list,
    ),
    Reader(
        "test list of RefCLEF",
        {
            "refclef/test.json": JSON,
            "refclef/refs(berkeley).p": PICKLE,
            "refclef/instances.json": JSON,
        },
        _test_list,
    ),
    Reader("grefcoco", _files("grefcoco", "grefs(unc).json", "instances.json"), _grefcoco),
    Reader(
        "GREC's gRefCOCO",
        _files("grefcoco", "finetune_grefcoco_val.json"),
        lambda _folder, file: table(finetune_grefcoco.read(file)),
    ),
    Reader(
        "Flickr30k Entities",
        _files(
            "flickr30k_entities",
            "Annotations/2000001.xml",
            "Sentences/2000001.txt",
            "Annotations/2000002.xml",
            "Sentences/2000002.txt",
            "val.txt",
            codec=None,
        ),
        _entities,
    ),
    Reader(
        "Visual Genome",
        _files("visual_genome", "image_data.json", "attributes.json", "region_descriptions.json"),
        _visual_genome,
    ),
    Reader(
        "paraphrases",
        {"paraphrases_seen.json": JSON},
        lambda _folder, file: table(paraphrases.read(file, "val")),
    ),
    Reader(
        "proposals",
        {"refcoco+/dets.json": JSON},
        lambda _folder, file: detections.read(file),
    ),
    Reader(
        "objects of COCO",
        {"refcoco+/instances.json": JSON},
        lambda _folder, file: detection.read_instances([file]),
    ),
    Reader("captions of COCO", {"captions.json": JSON}, _captions, _caption_sample),
    Reader(
        "own lists",
        {"own.jsonl": LINES, "own.csv": None, "coco.json": JSON, "mdetr.json": JSON},
        lambda _folder, file: table(_own_records(file)),
        _own_lists,
    ),
)
