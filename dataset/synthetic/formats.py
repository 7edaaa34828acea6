"""What the lists of the embedded data set hold, and REFER's files."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries, refer
from groundwork.dataset.formats.refer_instances import Target
from groundwork.dataset.record import Phrase, Record
from groundwork.dataset.synthetic.scenes import Scene, Thing, fill, run_lengths
from groundwork.dataset.synthetic.vocabulary import SHAPES
from groundwork.files.safe import write_text
from groundwork.geometry import Box


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Writes one item per line, making the folder."""
    write_text(path, "".join(f"{line}\n" for line in lines))


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
    """One REFER data set, collected scene by scene.

    split_in_tests: RefCLEF's test_file names the split of each entry, RefCOCO+'s does not.
    masks: of the objects of an image, as JSON text in their order.
    """

    def __init__(self, *, split_in_tests: bool) -> None:
        self.split_in_tests = split_in_tests
        self.records: list[Record] = []
        self.masks: dict[int, list[str]] = {}
        self._targets: dict[tuple[str, Box], Target] = {}

    def add_image(self, image_id: int, scene: Scene) -> None:
        """Adds an image with all its objects."""
        targets = [_target(thing, scene.height, scene.width) for thing in scene.things]
        self._targets |= {(scene.name, target.box): target for target in targets}
        self.masks[image_id] = [target.mask for target in targets]

    def add_ref(
        self, image_id: int, scene: Scene, thing: Thing, split: str, texts: list[str]
    ) -> None:
        """Adds one referred object with its expressions."""
        number = str(len(self.records) + 1)
        phrases = tuple(Phrase(text, number, (thing.box,)) for text in texts)
        self.records.append(
            Record(scene.name, scene.width, scene.height, phrases, split, str(image_id))
        )

    def tests(self) -> list[dict[str, Any]]:
        """The test_file: every sentence of a test split."""
        held = (record for record in self.records if record.split != "train")
        return refer.list_entries(held, with_split=self.split_in_tests)

    def write(self, folder: Path, split_by: str) -> None:
        """Writes `refs(SPLIT_BY).p`, `instances.json` and `test.json`."""
        refer.write(self.records, folder, split_by, self._target_of, SHAPES)
        entries.save_json(folder / "test.json", self.tests())

    def _target_of(self, record: Record) -> tuple[Target]:
        return (self._targets[record.image, record.phrases[0].boxes[0]],)


def _target(thing: Thing, height: int, width: int) -> Target:
    mask = fill(thing.outlines, height, width)
    # From pixel centres to pixel edges.
    polygon = (thing.outlines[0] + 0.5).clip(0, (width, height)).round(2)
    has_hole = len(thing.outlines) > 1
    shape = run_lengths(mask) if has_hole else [polygon.flatten().tolist()]
    text = json.dumps(shape, separators=(",", ":"))
    return Target(thing.box, text, thing.shape, int(mask.sum()))
