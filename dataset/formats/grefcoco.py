"""gRefCOCO: references to several objects, or to none.

grefs(SPLIT_BY).json  [{ref_id, ann_id: [int, ...], category_id: [int, ...], image_id, file_name,
                      split, no_target, sentences: [{sent_id, sent, raw, tokens}], sent_ids}];
                      ann_id [-1], [] or -1: the sentences match nothing; SPLIT_BY is "unc"
instances.json        the objects (`refer_instances`)
https://github.com/henghuiding/gRefCOCO
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries, refer, refer_instances
from groundwork.dataset.formats.refer_instances import Target
from groundwork.dataset.record import Record

_NOTHING = -1


def read(
    refs_file: str | os.PathLike[str],
    instances_file: str | os.PathLike[str],
    splits: Iterable[str] | None = None,
) -> Iterator[Record]:
    """One record per reference, in the file's order, with all its sentences as phrases.

    As `refer.read`, but a phrase has as many boxes and masks as the reference has objects, and
    `category` names the class of each, separated by commas, or once if all are of the same.
    Phrases of a reference without objects are marked `matches_nothing`.

    Raises:
        FileNotFoundError, ValueError: naming file, reference and key, or a split that is empty.
    """
    refs = [dict(entry) for _, entry in entries.load_entries(refs_file)]
    return refer.records(refs, _ann_ids, refs_file, instances_file, splits)


def _ann_ids(ref: Mapping[str, Any], source: str) -> list[int]:
    value = entries.need(ref, "ann_id", source)
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(ann_id, int) for ann_id in ids):
        raise ValueError(f"{source}: ann_id must be an integer or a list of integers, got {value}")
    objects = [ann_id for ann_id in ids if ann_id != _NOTHING]
    # Objects beside the mark for "nothing", or against the reference's own flag, leave its meaning
    # open.
    if objects and (len(objects) < len(ids) or ref.get("no_target")):
        raise ValueError(f"{source}: it names objects ({value}) and says that nothing is meant")
    if len(set(objects)) < len(objects):
        raise ValueError(f"{source}: ann_id names an object twice: {value}")
    return objects


def write(
    records: Iterable[Record], folder: str | os.PathLike[str], split_by: str = "unc"
) -> dict[str, tuple[int, int]]:
    """Write `grefs(SPLIT_BY).json` and instances.json; `read` gives the same records again.

    Args:
        records: one per reference; all phrases of a record are of the same objects, or all match
            nothing. Ids are kept as far as they are different numbers, or else given anew.
        folder: made if missing.
        split_by: names the file.

    Returns:
        {split: (references, sentences)}

    Raises:
        ValueError: a record without phrases or size, or whose phrases are of different objects.
    """
    records = list(records)
    refs = []
    for ref, pairs in refer_instances.write(records, Path(folder, "instances.json"), _targets):
        ann_ids, category_ids = zip(*pairs, strict=True) if pairs else ((_NOTHING,), (_NOTHING,))
        ids = {"ann_id": list(ann_ids), "category_id": list(category_ids), "no_target": not pairs}
        refs.append(ref | ids)
    entries.save_json(Path(folder, f"grefs({split_by}).json"), refs)
    return refer_instances.count(records)


def _targets(record: Record) -> tuple[Target, ...]:
    here = record.source or record.image
    first = record.phrases[0]
    for phrase in record.phrases:
        if (phrase.boxes, phrase.masks) != (first.boxes, first.masks):
            raise ValueError(f"{here}: all phrases of a reference are of the same objects")
        if phrase.matches_nothing == bool(phrase.boxes):
            raise ValueError(
                f"{here}: {phrase.text!r} must have boxes or be marked matches_nothing"
            )
    count = len(first.boxes)
    masks = first.masks or ("",) * count
    names = first.category.split(",")
    names = names * count if len(names) == 1 else names
    if count and not len(masks) == len(names) == count:
        raise ValueError(f"{here}: {count} boxes, but {len(masks)} masks and {len(names)} classes")
    return tuple(
        Target(box, mask, name)
        for box, mask, name in zip(first.boxes, masks, names[:count], strict=True)
    )
