"""Writers of the published annotation formats. Pixels of the original image; each docstring says
xyxy or xywh.
"""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dataset.synthetic.scenes import Thing, fill, run_lengths
from dataset.synthetic.vocabulary import SHAPES

Entry = dict[str, Any]


def write_json(path: Path, content: object) -> None:
    """Writes compact JSON, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, separators=(",", ":")) + "\n", encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes one item per line, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def write_pickle(path: Path, content: object) -> None:
    """Writes the pickle protocol that REFER's own files can be read with everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=2))


def enclosing_box(things: Iterable[Thing]) -> list[int]:
    """The xyxy box around all objects."""
    x1, y1, x2, y2 = zip(*(thing.box for thing in things), strict=True)
    return [min(x1), min(y1), max(x2), max(y2)]


def xywh(thing: Thing) -> list[int]:
    """The box as x, y, width, height."""
    x1, y1, x2, y2 = thing.box
    return [x1, y1, x2 - x1, y2 - y1]


def vg_entry(image: str, captions: list[str], box: Iterable[int]) -> Entry:
    """One entry of a VG train_file: captions that all describe the one xyxy box."""
    return {"image": image, "caption": captions, "bbox": [list(box)]}


def relation(group: str, synonyms: list[str]) -> dict[str, Any]:
    """The relation of a phrase: `group` are the words that each synonym may replace."""
    others = dict.fromkeys(("antonym", "exclusion", "hypernym", "meronym", "union"), ())
    return {"group": group, "synonym": synonyms, **{key: [] for key in others}}


class ReferFiles:
    """`refs(x).p` and `instances.json` of one REFER data set, collected scene by scene (boxes
    xywh).
    """

    def __init__(self, *, split_in_tests: bool) -> None:
        self.split_in_tests = (
            split_in_tests  # RefCLEF's test_file names the split of each entry, RefCOCO+'s does not
        )
        self.refs: list[Entry] = []
        self.images: list[Entry] = []
        self.annotations: list[Entry] = []
        self.tests: list[Entry] = []
        self._sentences = 0

    def add_image(
        self, image_id: int, file_name: str, height: int, width: int, things: Iterable[Thing]
    ) -> list[int]:
        """Adds an image with all its objects and returns their annotation ids."""
        self.images.append(
            {"id": image_id, "file_name": file_name, "height": height, "width": width}
        )
        ids = []
        for thing in things:
            ids.append(len(self.annotations) + 1)
            self.annotations.append(self._annotation(ids[-1], image_id, thing, height, width))
        return ids

    @staticmethod
    def _annotation(ann_id: int, image_id: int, thing: Thing, height: int, width: int) -> Entry:
        mask = fill(thing.outlines, height, width)
        polygon = (
            (thing.outlines[0] + 0.5).clip(0, (width, height)).round(2)
        )  # pixel centres to pixel edges
        has_hole = len(thing.outlines) > 1
        return {
            "id": ann_id,
            "image_id": image_id,
            "category_id": SHAPES.index(thing.shape) + 1,
            "bbox": xywh(thing),
            "area": int(mask.sum()),
            "iscrowd": 0,
            "segmentation": run_lengths(mask) if has_hole else [polygon.flatten().tolist()],
        }

    def add_ref(
        self, image_id: int, file_name: str, split: str, ann_id: int, texts: list[str]
    ) -> None:
        """Adds one referred object with its expressions; every sentence of a test split becomes a
        test_file entry.
        """
        sentences = []
        for text in texts:
            self._sentences += 1
            sentences.append(
                {"sent": text, "sent_id": self._sentences, "tokens": text.split(), "raw": text}
            )
        ref_id = len(self.refs) + 1
        self.refs.append(
            {
                "ref_id": ref_id,
                "ann_id": ann_id,
                "image_id": image_id,
                "split": split,
                "sentences": sentences,
                "sent_ids": [s["sent_id"] for s in sentences],
                "category_id": self.annotations[ann_id - 1]["category_id"],
                "file_name": file_name,
            }
        )
        if split != "train":
            named = {"split": split} if self.split_in_tests else {}
            self.tests += [
                {"image": file_name, "text": t, "ref_id": ref_id, **named} for t in texts
            ]

    def write(self, folder: Path, refs_name: str) -> None:
        """Writes `refs_name`, `instances.json` and `test.json`."""
        categories = [
            {"id": i + 1, "name": s, "supercategory": "shape"} for i, s in enumerate(SHAPES)
        ]
        write_pickle(folder / refs_name, self.refs)
        instances = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        write_json(folder / "instances.json", instances)
        write_json(folder / "test.json", self.tests)


class FlickrFiles:
    """info-ground's files of one Flickr30k split: image ids, boxes (xyxy) and sentences with their
    phrases.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.boxes: dict[str, Entry] = {}
        self.sentences: dict[str, list[Entry]] = {}

    def add(self, image_id: str, boxes: dict[str, list[list[int]]], sentences: list[Entry]) -> None:
        """Adds an image; a phrase whose id has no boxes is one that no region shows."""
        self.ids.append(image_id)
        self.boxes[image_id] = {"boxes": boxes}
        self.sentences[image_id] = sentences

    def write(self, folder: Path, split: str) -> None:
        """Writes `<split>.txt`, `bounding_boxes_<split>.json` and `sentences_<split>.json`."""
        write_lines(folder / f"{split}.txt", self.ids)
        write_json(folder / f"bounding_boxes_{split}.json", self.boxes)
        write_json(folder / f"sentences_{split}.json", self.sentences)
