"""REFER's data sets as the files of every tree: what prepare_refcoco and prepare_refclef share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from groundwork.dataset.formats import entries, refer
from groundwork.dataset.record import Record
from groundwork.geometry import decode_mask
from groundwork.tools import tree_files
from groundwork.tools.preparation import Outputs, counts_table, progress


@dataclass(frozen=True)
class ReferSet:
    """One data set of REFER in one split.

    Attributes:
        folder: below --raw. split_by: who made the split.
        resc: folder, prefix and layout of RefTR's and ReSC's lists. res: folder and prefix of
            RefTR's lists with masks. anns: name of SimREC's file. instances: ALVG's folder.
        splits: in the order of the tables. published: "train references" and so on -> count.
        dropped: images that are left out. collection: that the image ids count.
    """

    folder: str
    split_by: str
    resc: str
    res: tuple[str, str] | None
    anns: str
    instances: str
    splits: tuple[str, ...]
    published: Mapping[str, int]
    dropped: frozenset[str] = frozenset()
    collection: str = "coco"

    @property
    def title(self) -> str:
        """For tables: "refcocog (umd)"."""
        return f"{self.folder} ({self.split_by})"

    def sources(self, raw: Path) -> list[Path]:
        """REFER's two files below `raw`."""
        return list(refer.files(raw, self.folder, self.split_by))


def load(raw: Path, chosen: ReferSet) -> tuple[dict[str, list[Record]], dict[str, int]]:
    """(split -> its records in REFER's order, image left out -> references).

    Every "test..." of a set whose splits are train, val, test belongs to "test".
    """
    splits: dict[str, list[Record]] = {split: [] for split in chosen.splits}
    left_out: dict[str, int] = dict.fromkeys(sorted(chosen.dropped), 0)
    records = refer.read(*chosen.sources(raw))
    for record in progress(records, unit="references", what=chosen.title):
        split = "test" if "test" in splits and record.split.startswith("test") else record.split
        if split not in splits:
            raise ValueError(
                f"{record.source}: split {record.split!r} is none of {', '.join(splits)} of"
                f" {chosen.title}; is this the right refs file?"
            )
        if record.record_id in chosen.dropped:
            left_out[record.record_id] += 1
        else:
            identity = f"{chosen.collection}:{record.record_id}"
            splits[split].append(replace(record, split=split, image_ids=(identity,)))
    return splits, left_out


def write_trees(
    chosen: ReferSet, raw: Path, splits: Mapping[str, list[Record]], out: Outputs, *, masks: bool
) -> None:
    """Write the lists of RefTR (REC and RES), SimREC and ALVG."""
    for split, records in splits.items():
        name = f"annotations_resc/{chosen.resc}/{chosen.resc}_{split}.pth"
        out.write_tuples(name, records, chosen.resc)
        if chosen.res is not None:
            folder, version = chosen.res
            masked = [_with_mask_file(record, chosen.split_by) for record in records]
            out.write_tuples(f"refcoco/anns/{folder}/{version}_{split}.pth", masked, "res")
    if masks and chosen.res is not None:
        files = {
            f"{record.phrases[0].phrase_id}.npy": partial(_write_mask, record)
            for records in splits.values()
            for record in records
        }
        out.write_folder(f"refcoco/masks/{chosen.res[0]}/{chosen.split_by}", files)
    names = (f"anns/{chosen.anns}.json", f"annotations/{chosen.instances}/instances.json")
    categories = _contiguous_categories(chosen.sources(raw)[1])
    tree_files.write_objects(splits, names, out, categories)


def _with_mask_file(record: Record, folder: str) -> Record:
    """The masks of two splittings of one data set, whose numbers overlap, lie in two folders."""
    mask = f"{folder}/{record.phrases[0].phrase_id}.npy"
    return replace(record, phrases=tuple(replace(one, masks=(mask,)) for one in record.phrases))


def _write_mask(record: Record, path: Path) -> None:
    """A uint8 (H, W) array, 1 inside."""
    (mask,) = record.phrases[0].masks or ("",)
    if not mask or record.width is None or record.height is None:
        raise ValueError(f"{record.source} has no mask or size; leave --masks away")
    with path.open("wb") as file:
        np.save(file, decode_mask(mask, (record.height, record.width)).astype(np.uint8))


def _contiguous_categories(instances_file: Path) -> dict[str, int]:
    """Class name -> its place in the order of ids: COCO's 91 ids become 0 to 79."""
    categories = entries.load_json(instances_file).get("categories") or []
    ordered = sorted(categories, key=lambda category: category["id"])
    return {str(category["name"]): place for place, category in enumerate(ordered)}


def list_entries(
    records: Iterable[Record], folder: str, *, unique: bool, with_split: bool
) -> list[dict[str, Any]]:
    """A test_file of the AMC/SelfEQ releases: one entry per sentence, in REFER's order.

    Args:
        folder: of the images, before their names ("": none).
        unique: an expression that the same object was given before is left out.
        with_split: the entries name their split.
    """
    found: dict[tuple[str, str], None] = {}
    rows = []
    for record in records:
        for phrase in record.phrases:
            key = (phrase.phrase_id, phrase.text)
            if unique and key in found:
                continue
            found[key] = None
            image = f"{folder}/{record.image}" if folder else record.image
            entry = {"image": image, "text": phrase.text, "ref_id": int(phrase.phrase_id)}
            rows.append({**entry, "split": record.split} if with_split else entry)
    return rows


def summary(chosen: ReferSet, splits: Mapping[str, list[Record]]) -> str:
    """References, sentences and images per split beside the published counts."""
    counted = {}
    for split, records in splits.items():
        counted[f"{split} references"] = len(records)
        counted[f"{split} sentences"] = sum(len(record.phrases) for record in records)
        counted[f"{split} images"] = len({record.image for record in records})
    return counts_table(chosen.title, counted, chosen.published)
