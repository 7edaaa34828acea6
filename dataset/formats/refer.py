"""REFER's data sets RefCOCO, RefCOCO+, RefCOCOg and RefCLEF, whole or by the test lists of the
AMC/SelfEQ releases.

refs(SPLIT_BY).p  pickled list of {ref_id, ann_id, category_id, image_id, file_name, split,
                  sentences: [{sent_id, sent, raw, tokens}], sent_ids}; SPLIT_BY is "unc" for
                  RefCOCO and RefCOCO+, "google" or "umd" for RefCOCOg, "berkeley" or "unc" for
                  RefCLEF
instances.json    the objects (`refer_instances`)
test_file         [{image, text, ref_id}]; RefCLEF also split: "val" | "test..."
REFER: https://github.com/lichengunc/refer
"""

import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from groundwork.dataset.formats import entries, notes, plain_pickle, refer_instances
from groundwork.dataset.formats.entries import number
from groundwork.dataset.formats.refer_agreement import Agreement
from groundwork.dataset.formats.refer_instances import Instances, Target, in_split
from groundwork.dataset.record import Phrase, Record
from groundwork.files.safe import atomic_write

# Who made the split that the papers report.
SPLIT_BY = {"refcoco+": "unc", "refclef": "berkeley"}


def load_refs(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """REFER's `refs(...).p`, written by Python 2 or 3, as plain lists, dicts, strings and numbers.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a pickle, damaged, or a pickle that holds more than plain data (it is not
            executed).
    """
    refs = plain_pickle.read(
        path,
        missing="refcoco_data is the folder with refcoco+/refs(unc).p",
        damaged="fetch REFER's file again",
    )
    if not isinstance(refs, list) or not all(isinstance(ref, dict) for ref in refs):
        raise ValueError(f"{path} does not hold a list of references; fetch REFER's file again")
    return refs


def files(
    refer_root: str | os.PathLike[str], name: str, split_by: str | None = None
) -> tuple[Path, Path]:
    """REFER's references and instances of "refcoco+" or "refclef", split as in the papers."""
    folder = Path(refer_root, name)
    return folder / f"refs({split_by or SPLIT_BY[name]}).p", folder / "instances.json"


def read(
    refs_file: str | os.PathLike[str],
    instances_file: str | os.PathLike[str],
    splits: Iterable[str] | None = None,
) -> Iterator[Record]:
    """One record per reference, in the file's order, with all its sentences as phrases; references
    without a sentence are left out and noted.

    Record id is the image_id, phrase id the ref_id, text the cleaned sentence (`sent`). Every
    phrase has the object's one box, its mask where it is annotated, and its class. The split is the
    annotated one (RefCLEF: also "testAB").

    Args:
        refs_file, instances_file: see above.
        splits: those of which references are wanted, by the rule of `refer_instances.in_split`;
            None: all.

    Raises:
        FileNotFoundError, ValueError: naming file, reference and key, two references of one
            ref_id, or a split that is empty.
    """
    return records(load_refs(refs_file), _ann_ids, refs_file, instances_file, splits)


def _ann_ids(ref: Mapping[str, Any], source: str) -> list[int]:
    return [number(ref, "ann_id", source)]


def records(
    refs: list[dict[str, Any]],
    ann_ids: Callable[[Mapping[str, Any], str], list[int]],
    refs_file: str | os.PathLike[str],
    instances_file: str | os.PathLike[str],
    splits: Iterable[str] | None,
) -> Iterator[Record]:
    """As `read`, of the content of a file and what gives the objects of a reference and its name
    for messages."""
    entries.require_distinct(refs, "ref_id", os.fspath(refs_file))
    instances = Instances(instances_file)
    empty = []
    for ref, source in _chosen(refs, refs_file, splits):
        # gRefCOCO's authors say to skip them.
        if ref.get("sentences") == []:
            empty.append(source)
            continue
        image_id, ref_id = (number(ref, key, source) for key in ("image_id", "ref_id"))
        targets = tuple(instances.target(one, image_id, source) for one in ann_ids(ref, source))
        where = f"{source}, {instances.path}"
        phrases = tuple(phrase_of(text, ref_id, targets, where) for text in _sentences(ref, source))
        yield record_of(ref, instances, phrases, refs_file, source)
    notes.say(refs_file, "references without a sentence are left out", empty)


def _chosen(
    refs: list[dict[str, Any]], path: str | os.PathLike[str], splits: Iterable[str] | None
) -> Iterator[tuple[dict[str, Any], str]]:
    """The references of `splits`, each with its name for messages ("refs(unc).p[17]").

    Raises:
        ValueError: a split has no reference; nothing has been yielded then.
    """
    annotated = [
        str(entries.need(ref, "split", f"{path}[{index}]")) for index, ref in enumerate(refs)
    ]
    wanted = None if splits is None else list(splits)
    for split in wanted or ():
        if not any(in_split(name, split) for name in annotated):
            there = ", ".join(sorted(set(annotated)))
            raise ValueError(f"{path} has no reference of split {split!r} (it has: {there})")
    for index, ref in enumerate(refs):
        if wanted is None or any(in_split(annotated[index], split) for split in wanted):
            yield ref, f"{path}[{index}]"


def _sentences(ref: Mapping[str, Any], source: str) -> tuple[str, ...]:
    """The cleaned sentences of a reference; at least one."""
    rows = entries.need(ref, "sentences", source)
    if not isinstance(rows, list) or not all(isinstance(row, Mapping) for row in rows):
        raise ValueError(f"{source}: sentences must be a list of objects, got {rows!r}")
    texts = [entries.need(row, "sent", source) for row in rows]
    return entries.texts({"sentences": texts}, "sentences", source)


def phrase_of(text: str, ref_id: int, targets: tuple[Target, ...], where: str) -> Phrase:
    """A sentence about objects; none: it matches nothing. `where` names the files for messages.

    Raises:
        ValueError: some of the objects have masks and some have not.
    """
    masks = tuple(target.mask for target in targets if target.mask)
    if len(masks) not in (0, len(targets)):
        raise ValueError(
            f"{where}: reference {ref_id}: only {len(masks)} of {len(targets)} objects have"
            " a segmentation; annotate all or none"
        )
    categories = [target.category for target in targets]
    return Phrase(
        text=text,
        phrase_id=str(ref_id),
        boxes=tuple(target.box for target in targets),
        masks=masks,
        category=",".join(categories[:1] if len(set(categories)) == 1 else categories),
        matches_nothing=not targets,
    )


def record_of(
    ref: Mapping[str, Any],
    instances: Instances,
    phrases: tuple[Phrase, ...],
    refs_file: str | os.PathLike[str],
    source: str,
) -> Record:
    """The record of a reference's image.

    The image's name is that of instances.json; a reference's own `file_name` ends in the number
    of the object.
    """
    image_id = number(ref, "image_id", source)
    image = instances.image(image_id, source)
    here = f"{instances.path} image {image_id}"
    name = str(entries.need(image, "file_name", here))
    width, height = entries.size(image, here)
    return Record(
        image=name,
        width=width,
        height=height,
        phrases=phrases,
        split=str(entries.need(ref, "split", source)),
        record_id=str(image_id),
        source=source,
        image_ids=refer_instances.identities(name, image_id, refs_file),
    )


def write(
    records: Iterable[Record],
    folder: str | os.PathLike[str],
    split_by: str,
    targets_of: Callable[[Record], tuple[Target, ...]] | None = None,
    classes: Sequence[str] = (),
) -> dict[str, tuple[int, int]]:
    """Write `refs(SPLIT_BY).p` and instances.json; `read` gives the same records again.

    Args:
        records: one per reference; all phrases of a record are of the same single object. Ids are
            kept as far as they are different numbers, or else given anew.
        folder: made if missing.
        split_by: "unc", "umd", ...
        targets_of: a record's object; None: what its phrases say.
        classes: those that have the first category ids, in their order.

    Returns:
        {split: (references, sentences)}

    Raises:
        ValueError: a record without phrases or size, or whose phrases are not of one object.
    """
    records = list(records)
    path = Path(folder, "instances.json")
    written = refer_instances.write(records, path, targets_of or _single_target, classes)
    refs = [
        ref | {"ann_id": ann_id, "category_id": category_id}
        for ref, [(ann_id, category_id)] in written
    ]
    save_refs(Path(folder, f"refs({split_by}).p"), refs)
    return refer_instances.count(records)


def save_refs(path: str | os.PathLike[str], refs: list[dict[str, Any]]) -> None:
    """Write `refs(SPLIT_BY).p`: what `load_refs` returns."""
    with atomic_write(path) as partial:
        # REFER's own tools run on Python 2 too, which knows no later protocol.
        partial.write_bytes(pickle.dumps(refs, protocol=2))


def _single_target(record: Record) -> tuple[Target]:
    targets = {(phrase.boxes, phrase.masks, phrase.category) for phrase in record.phrases}
    if len(targets) == 1:
        boxes, masks, category = targets.pop()
        if len(boxes) == 1 and len(masks) <= 1:
            return (Target(boxes[0], "".join(masks), category),)
    raise ValueError(
        f"{record.source or record.image}: REFER's references are of one object with one box; make"
        " one record per object, or write gRefCOCO's format"
    )


def read_list(
    test_file: str | os.PathLike[str],
    refer_root: str | os.PathLike[str],
    split_by: str | None = None,
    agreement: Agreement | None = None,
    *,
    name: str,
) -> Iterator[Record]:
    """One record per entry of the test list of "refcoco+" or "refclef".

    Record id is the image_id (the key of the detections), phrase id the ref_id. RefCOCO+: the split
    ("val", "testA", "testB") is that of the entry's reference. RefCLEF: the entry's own, which is
    reported as "test" if that is in it ("testA", "testAB").

    Args:
        agreement: learns how the entries fit to their references.

    Raises:
        FileNotFoundError, ValueError: naming file, entry and key; at the end, how many references
            are missing.
    """
    agreement, own_split = agreement or Agreement(), name == "refclef"
    refs_file, instances_file = files(refer_root, name, split_by)
    refs = entries.by_number(load_refs(refs_file), "ref_id", os.fspath(refs_file))
    instances = Instances(instances_file)
    for source, entry in entries.load_entries(test_file):
        ref_id = number(entry, "ref_id", source)
        agreement.entries += 1
        if ref_id not in refs:
            agreement.missing.append((source, ref_id))
            continue
        ref, there = refs[ref_id], f"{refs_file} ref {ref_id}"
        split = str(entries.need(entry if own_split else ref, "split", source))
        image_id = number(ref, "image_id", there)
        image = str(entries.need(entry, "image", source))
        text = entries.text(entry, "text", source)
        target = instances.target(number(ref, "ann_id", there), image_id, source)
        phrases = (phrase_of(text, ref_id, (target,), f"{source}, {instances.path}"),)
        record = record_of(ref, instances, phrases, refs_file, source)
        agreement.compare(source, (image, text), (record.image, _said_of(ref)), there)
        split = "test" if own_split and in_split(split, "test") else split
        yield replace(record, image=image, split=split)
    agreement.require_all(str(test_file), refs_file)


read_refcoco_plus = partial(read_list, name="refcoco+")
read_refclef = partial(read_list, name="refclef")


def list_entries(
    records: Iterable[Record], folder: str = "", *, unique: bool = False, with_split: bool = False
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


def _said_of(ref: Mapping[str, Any]) -> list[str]:
    """The sentences of a reference that is only compared with: there may be none."""
    rows = ref.get("sentences")
    rows = rows if isinstance(rows, list) else []
    return [str(row.get("sent", "")) for row in rows if isinstance(row, Mapping)]
