"""The owners' downloads in miniature: the files of `docs/data.md` below data/, before any tool."""

from pathlib import Path

import numpy as np

from groundwork.dataset.formats import detections, grefcoco, refer
from groundwork.dataset.record import Phrase, Record
from tests.helpers.dataset_files import write_image, write_json

# The images are 80 x 60 pixels.
BOX, OTHER = (10.0, 5.0, 30.0, 25.0), (40.0, 5.0, 60.0, 25.0)
TRIANGLES = {BOX: "[[10,5,30,5,30,25]]", OTHER: "[[40,5,60,5,60,25]]"}
REFER = {
    ("refcoco", "unc"): ("train", "val", "testA", "testB"),
    ("refcoco+", "unc"): ("train", "val", "testA", "testB"),
    ("refcocog", "google"): ("train", "val"),
    ("refcocog", "umd"): ("train", "val", "test"),
    ("refclef", "berkeley"): ("train", "val", "test"),
}
FLICKR = {"train": "11", "val": "12", "test": "13"}
XML = """<annotation><filename>{name}.jpg</filename>
<size><width>80</width><height>60</height><depth>3</depth></size>
<object><name>1</name>
<bndbox><xmin>11</xmin><ymin>6</ymin><xmax>30</xmax><ymax>25</ymax></bndbox></object>
</annotation>"""
SENTENCES = "[/EN#1/animals A dog] on grass .\n[/EN#1/animals The animal] runs .\n"


def coco_name(image: int) -> str:
    return f"COCO_train2014_{image:012d}.jpg"


def reference(
    number: int, image: int, split: str, boxes: tuple = (BOX,), name: str | None = None
) -> Record:
    """A reference to the objects in `boxes` by two sentences."""
    phrases = tuple(
        Phrase(
            text,
            str(number),
            boxes,
            masks=tuple(TRIANGLES[box] for box in boxes),
            category="dog" if boxes else "",
            matches_nothing=not boxes,
        )
        for text in (f"the red dog {number}", f"left dog {number}")
    )
    return Record(name or coco_name(image), 80, 60, phrases, split, str(image))


def write_refer(data: Path) -> None:
    """REFER's folders below data/refer and their images; each split has one image."""
    for (folder, split_by), splits in REFER.items():
        records = []
        for number, split in enumerate(splits, 1):
            image = 9 if split == "train" else number
            name = f"{image}.jpg" if folder == "refclef" else None
            records.append(reference(number, image, split, name=name))
        refer.write(records, data / "refer" / folder, split_by)
        for record in records:
            below = "refclef/images" if folder == "refclef" else "coco/images/train2014"
            write_image(data / below / record.image)


def write_proposals(data: Path) -> None:
    """A detector's dets.json for the images that RefCOCO+ evaluates."""
    boxes = {str(image): np.array([[*BOX, 0.9]]) for image in (2, 3, 4)}
    detections.write(boxes, data / "refer" / "refcoco+" / "dets.json")


def write_grefcoco(data: Path) -> None:
    kinds = [(BOX,), (BOX, OTHER), ()]
    records = [
        reference(number, image, split, boxes)
        for number, (image, split, boxes) in enumerate(
            (image, split, boxes) for image, split in ((9, "train"), (2, "val")) for boxes in kinds
        )
    ]
    grefcoco.write(records, data / "grefcoco")
    for record in records:
        write_image(data / "coco/images/train2014" / record.image)


def write_flickr30k(data: Path) -> None:
    raw = data / "flickr30k_entities"
    for kind in ("Annotations", "Sentences"):
        (raw / kind).mkdir(parents=True)
    for split, name in FLICKR.items():
        (raw / f"{split}.txt").write_text(f"{name}\n")
        (raw / "Annotations" / f"{name}.xml").write_text(XML.format(name=name))
        (raw / "Sentences" / f"{name}.txt").write_text(SENTENCES)
        write_image(data / "flickr30k" / "images" / f"{name}.jpg")


def write_visual_genome(data: Path) -> None:
    """Three images; the second is COCO's 2, which RefCOCO evaluates on."""
    raw, places = data / "vg", {1: "VG_100K", 2: "VG_100K", 3: "VG_100K_2"}
    images = [
        {
            "image_id": image,
            "coco_id": 2 if image == 2 else None,
            "url": f"https://cs.stanford.edu/people/rak248/{folder}/{image}.jpg",
            "width": 80,
            "height": 60,
        }
        for image, folder in places.items()
    ]
    write_json(raw / "image_data.json", images)
    region = {"region_id": 1, "x": 10, "y": 5, "width": 20, "height": 20, "phrase": "a red dog"}
    regions = [{"id": image, "regions": [{**region, "image_id": image}]} for image in places]
    write_json(raw / "region_descriptions.json", regions)
    for image, folder in places.items():
        write_image(raw / "images" / folder / f"{image}.jpg")


def write_captions(data: Path) -> None:
    """COCO's captions; RefCOCO evaluates on image 2."""
    images = [{"id": image, "file_name": coco_name(image)} for image in (2, 8, 9)]
    rows = [
        {"id": number, "image_id": image["id"], "caption": text}
        for number, (image, text) in enumerate(
            (image, text)
            for image in images
            for text in ("A man with a red hat and a dog.", "A woman on the left of a dog.")
        )
    ]
    path = data / "coco" / "annotations" / "captions_train2014.json"
    write_json(path, {"images": images, "annotations": rows})
    for image in images:
        write_image(data / "coco/images/train2014" / str(image["file_name"]))


def write_everything(data: Path) -> None:
    """All of the owners' files and images; no proposals."""
    for write in (write_refer, write_grefcoco, write_flickr30k, write_visual_genome):
        write(data)
    write_captions(data)
