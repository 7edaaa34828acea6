"""REFER's data sets as the files of every tree: what prepare_refcoco and prepare_refclef share."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from groundwork.dataset.formats import entries, refer
from groundwork.dataset.formats.grouping import by_object
from groundwork.dataset.record import Record
from groundwork.dataset.trees import mask_files, masked_lists, object_lists, phrase_lists
from groundwork.tools.preparation import Outputs, counts_table, progress


@dataclass(frozen=True)
class ReferSet:
    """One data set of REFER in one split.

    Attributes:
        folder: below --raw. split_by: who made the split.
        resc: folder, prefix and layout of RefTR's and ReSC's lists. anns: name of SimREC's file.
            instances: ALVG's folder.
        splits: in the order of the tables. published: "train references" and so on -> count.
        dropped: images that are left out. collection: that the image ids count; objects on COCO's
            images have masks.
    """

    folder: str
    split_by: str
    resc: str
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
    lists = [*phrase_lists(chosen.resc, splits)]
    if chosen.collection == "coco":
        lists += masked_lists(chosen.folder, chosen.split_by, splits)
    categories = _contiguous_categories(chosen.sources(raw)[1])
    objects = [one for split in splits for one in by_object(splits[split], categories)]
    for one in (*lists, *object_lists(chosen.anns, chosen.instances, objects)):
        out.write_list(one)
    if masks:
        out.write_folder(f"refcoco/masks/{chosen.folder}/{chosen.split_by}", mask_files(splits))


def _contiguous_categories(instances_file: Path) -> dict[str, int]:
    """Class name -> its place in the order of ids: COCO's 91 ids become 0 to 79."""
    categories = entries.load_json(instances_file).get("categories") or []
    ordered = sorted(categories, key=lambda category: category["id"])
    return {str(category["name"]): place for place, category in enumerate(ordered)}


def summary(chosen: ReferSet, splits: Mapping[str, list[Record]]) -> str:
    """References, sentences and images per split beside the published counts."""
    counted = {}
    for split, records in splits.items():
        counted[f"{split} references"] = len(records)
        counted[f"{split} sentences"] = sum(len(record.phrases) for record in records)
        counted[f"{split} images"] = len({record.image for record in records})
    return counts_table(chosen.title, counted, chosen.published)
