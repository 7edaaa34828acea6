"""What the lists of the embedded data set hold, and REFER's files. Pixels of the original image;
each docstring says xyxy or xywh.

REFER's files hold what a `Record` does not: objects that no reference names, areas, classes that no
object has. They are therefore put together here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundwork import utils
from groundwork.dataset.formats import entries, refer
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.synthetic.scenes import Thing, fill, run_lengths
from groundwork.dataset.synthetic.vocabulary import SHAPES
from groundwork.geometry import Box, xyxy_to_xywh

Entry = dict[str, Any]


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes one item per line, making the folder."""
    utils.write_text(path, "".join(f"{line}\n" for line in lines))


def listed(
    image: str,
    texts: Iterable[str],
    box: Box | None,
    relation: tuple[str, tuple[str, ...]] = ("", ()),
) -> Record:
    """An entry of a training list: texts that all describe the one xyxy box, or the whole image.

    relation: words of the text, and what may stand in for them.
    """
    boxes = () if box is None else (box,)
    group, synonyms = relation
    phrases = tuple(Phrase(one, boxes=boxes, group=group, synonyms=synonyms) for one in texts)
    return Record(image, None, None, phrases, split="train")


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
            "bbox": entries.plain([xyxy_to_xywh(thing.box)])[0],
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
        refer.save_refs(folder / refs_name, self.refs)
        instances = {
            "images": self.images,
            "annotations": self.annotations,
            "categories": categories,
        }
        entries.save_json(folder / "instances.json", instances)
        entries.save_json(folder / "test.json", self.tests)
