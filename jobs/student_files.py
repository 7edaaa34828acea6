"""Pseudo-labels as the files that published students train on.

The labelled split is written from the labels only, an entry per expression, since each has a box of
its own. The splits of data.evaluate come along as annotated, for evaluation only.
"""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from groundwork.dataset.formats import entries, refer, simrec, tuples
from groundwork.dataset.formats.grouping import by_object, numbered
from groundwork.dataset.formats.labels import Label
from groundwork.dataset.images import image_size, resolve_image
from groundwork.dataset.pseudo_labels import snapped
from groundwork.dataset.record import Record
from groundwork.dataset.sources import read_splits
from groundwork.geometry import xyxy_to_xywh
from groundwork.jobs.benchmark_files import NAMES, Names
from groundwork.settings import RunConfig

Proposals = Mapping[str, np.ndarray]
# Neither labels nor REFER's students need the classes of the annotation; REFER's files have one.
CLASS = "object"


def write_simrec(
    config: RunConfig, labels: Sequence[Label], out: Path, _proposals: Proposals | None
) -> str:
    """anns/NAME.json and masks/NAME/ID.npy, for SimREC, and for RealGIN if it reads the same.

    The student's vocabulary is that of this file, all splits: a word that is only in expressions
    without a label is not in it, so it is evaluated with this file, too.
    """
    name, _, _ = _names(config)
    assert name is not None  # `require_reader` has looked
    path, root = out / "anns" / f"{name}.json", config.data.evaluation_images
    records = [*_training(labels), *_evaluation(config)]
    counts = simrec.write(records, path)
    masks = out / "masks" / name
    written = _write_masks((_sized(record, root) for record in records), masks)
    return f"{path}: {_text(counts)}; {masks}: {written} masks of the whole image"


def write_tuples(
    config: RunConfig, labels: Sequence[Label], out: Path, _proposals: Proposals | None
) -> str:
    """annotations_resc/NAME/NAME_SPLIT.pth, for ReSC, TransVG and RefTR."""
    _, name, _ = _names(config)
    splits: dict[str, list[Record]] = {"train": list(_training(labels))}
    for record in _evaluation(config):
        splits.setdefault(record.split, []).append(record)
    folder = out / "annotations_resc" / name
    counts = {}
    for split, records in splits.items():
        bare = [replace(record, image=PurePath(record.image).name) for record in records]
        path = folder / f"{name}_{split}.pth"
        counts[split] = tuples.write(bare, path, name, unite_boxes=True)["tuples"]
    return f"{folder}: {_text(counts)}"


def write_refer(
    config: RunConfig, labels: Sequence[Label], out: Path, proposals: Proposals | None
) -> str:
    """refer/NAME/refs(SPLIT_BY).p and instances.json, for MAttNet and others that choose among
    proposals: with them, each box is the proposal nearest to it, and the others of the images
    are objects of instances.json, too.

    Raises:
        ValueError: an image has no proposals.
    """
    *_, place = _names(config)
    assert place is not None  # `require_reader` has looked
    name, split_by = place
    far = 0
    if proposals is not None:
        labels, far = snapped(labels, proposals)
    root = config.data.evaluation_images
    records = [
        _classified(_sized(record, root)) for record in (*_training(labels), *_evaluation(config))
    ]
    folder = out / "refer" / name
    counts = {split: n for split, (n, _) in refer.write(records, folder, split_by).items()}
    note = "boxes are the teacher's, no proposals"
    if proposals is not None:
        added = _add_objects(folder / "instances.json", labels, proposals)
        note = f"{far} boxes overlap no proposal by half; {added} other proposals"
    return f"{folder}: {_text(counts)} ({note})"


KINDS: dict[str, Callable[[RunConfig, Sequence[Label], Path, Proposals | None], str]] = {
    "simrec": write_simrec,
    "tuples": write_tuples,
    "refer": write_refer,
}


def require_reader(config: RunConfig, kind: str) -> None:
    """Raises ValueError if the students of a kind of files have no reader for the benchmark."""
    if (config.benchmark or "").removeprefix("embedded/") not in NAMES:
        raise ValueError(
            f"--write {kind}: no published student reads benchmark {config.benchmark}; leave"
            f" --write out, or set benchmark to one of {', '.join(NAMES)}"
        )
    name, _, place = _names(config)
    if kind == "simrec" and name is None:
        raise ValueError(f"SimREC has no reader for {config.benchmark}; leave simrec out")
    if kind == "refer" and place is None:
        raise ValueError(f"{config.benchmark} is not published in REFER's form; leave refer out")


def _names(config: RunConfig) -> Names:
    return NAMES[(config.benchmark or "").removeprefix("embedded/")]


def _training(labels: Sequence[Label]) -> Iterator[Record]:
    for number, label in enumerate(labels, 1):
        record = label.record()
        (phrase,) = record.phrases
        if not phrase.phrase_id.isdecimal():
            phrase = replace(phrase, phrase_id=str(number))
        yield numbered(replace(record, split="train"), (phrase,))


def _evaluation(config: RunConfig) -> Iterator[Record]:
    """One record per expression of the splits that are for evaluation, without masks."""
    data = config.data
    splits = {split: files for split, files in data.evaluate.items() if split not in data.train}
    records = read_splits(splits, data.format, data.cache_dir) if splits else ()
    for record in by_object(records):
        yield replace(record, phrases=tuple(replace(one, masks=()) for one in record.phrases))


def _classified(record: Record) -> Record:
    return replace(record, phrases=tuple(replace(one, category=CLASS) for one in record.phrases))


def _sized(record: Record, image_root: str) -> Record:
    """With the size of the image as it is shown, which is how students open it."""
    if record.width:
        return record
    path = resolve_image(image_root, record.image, record.source)
    height, width = image_size(path, record.source, shown=True)
    return replace(record, width=width, height=height)


def _write_masks(records: Iterable[Record], folder: Path) -> int:
    """A mask of ones for every object, without which SimREC's loader does not start; its box does
    not depend on them. Those of one size are links to one file where links can be made.

    Returns:
        How many there are.
    """
    folder.mkdir(parents=True, exist_ok=True)
    of_size: dict[tuple[int | None, int | None], Path] = {}
    written: set[Path] = set()
    for record in records:
        for path in (folder / f"{phrase.phrase_id}.npy" for phrase in record.phrases):
            if path in written:
                continue
            size = record.height, record.width
            path.unlink(missing_ok=True)
            if size in of_size:
                _link(of_size[size], path)
            else:
                np.save(path, np.ones(size, dtype=np.uint8))
                of_size[size] = path
            written.add(path)
    return len(written)


def _link(there: Path, path: Path) -> None:
    try:
        os.link(there, path)
    except OSError:  # another file system, or too many links
        shutil.copyfile(there, path)


def _add_objects(path: Path, labels: Sequence[Label], proposals: Proposals) -> int:
    """Put the proposals that no label took into instances.json; returns how many."""
    content = entries.load_json(path)
    taken = {(label.record_id, label.box) for label in labels}
    images = {Path(row["file_name"]).name: row["id"] for row in content["images"]}
    added: list[dict[str, Any]] = []
    for label in {label.image: label for label in labels}.values():
        for box in map(tuple, proposals[label.record_id].tolist()):
            if (label.record_id, box) not in taken:
                x, y, w, h = xyxy_to_xywh(box).tolist()
                added.append({
                    "id": len(content["annotations"]) + len(added) + 1,
                    "image_id": images[Path(label.image).name],
                    "category_id": content["categories"][0]["id"],
                    "bbox": [x, y, w, h], "area": w * h, "iscrowd": 0, "segmentation": [],
                })  # fmt: skip
    content["annotations"] += added
    entries.save_json(path, content)
    return len(added)


def _text(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{split} {count}" for split, count in counts.items())
