"""The lists of a data set at the places where the published repositories look for them.

annotations_resc/LAYOUT/LAYOUT_SPLIT.pth         RefTR, ReSC, TransVG: one phrase, one box
annotations/flickr/flickr_SPLIT.pth              RefTR: all phrases of a sentence
refcoco/anns/SET/SET_SPLITBY_SPLIT.pth           RefTR: one phrase with its box and the file of its
refcoco/masks/SET/SPLITBY/REF.npy                mask, uint8 (H, W), 1 inside
anns/NAME.json, annotations/NAME/instances.json  SimREC, RefCLIP; ALVG, SimVG, SeqTR: objects
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from groundwork.dataset.formats import instances_json, simrec, tuples
from groundwork.dataset.record import Record
from groundwork.geometry import decode_mask

Splits = Mapping[str, list[Record]]


class TreeList(NamedTuple):
    """`records` at the place `name` below a root. write: (records, file); read: file -> records."""

    name: str
    records: Iterable[Record]
    write: Callable[[Iterable[Record], Path], object]
    read: Callable[[Path], Iterable[Record]]


def tuple_list(name: str, records: Iterable[Record], layout: str) -> TreeList:
    """A list of tuples; a phrase with several boxes has the box around them."""
    write = partial(tuples.write, layout=layout, unite_boxes=True)
    return TreeList(name, records, write, partial(tuples.read, layout=layout))


def phrase_lists(layout: str, splits: Splits) -> Iterator[TreeList]:
    """annotations_resc/LAYOUT, one box per phrase."""
    for split, records in splits.items():
        yield tuple_list(f"annotations_resc/{layout}/{layout}_{split}.pth", records, layout)


def sentence_lists(splits: Splits) -> Iterator[TreeList]:
    """annotations/flickr, all phrases of a sentence."""
    for split, records in splits.items():
        yield tuple_list(f"annotations/flickr/flickr_{split}.pth", records, "multi")


def masked_lists(data_set: str, split_by: str, splits: Splits) -> Iterator[TreeList]:
    """refcoco/anns/SET. The masks of two splittings of one data set, whose numbers overlap, lie in
    two folders."""
    for split, records in splits.items():
        named = [_with_mask_file(record, split_by) for record in records]
        yield tuple_list(f"refcoco/anns/{data_set}/{data_set}_{split_by}_{split}.pth", named, "res")


def _with_mask_file(record: Record, folder: str) -> Record:
    mask = f"{folder}/{record.phrases[0].phrase_id}.npy"
    return replace(record, phrases=tuple(replace(one, masks=(mask,)) for one in record.phrases))


def mask_files(splits: Splits) -> dict[str, Callable[[Path], None]]:
    """REF.npy -> what writes it."""
    return {
        f"{record.phrases[0].phrase_id}.npy": partial(_write_mask, record)
        for records in splits.values()
        for record in records
    }


def _write_mask(record: Record, path: Path) -> None:
    (mask,) = record.phrases[0].masks or ("",)
    if not mask or record.width is None or record.height is None:
        raise ValueError(f"{record.source} has no mask or size; leave --masks away")
    with path.open("wb") as file:
        np.save(file, decode_mask(mask, (record.height, record.width)).astype(np.uint8))


def object_lists(
    anns: str, instances: str, records: list[Record], *, merged: bool = False
) -> tuple[TreeList, TreeList]:
    """anns/NAME.json and annotations/NAME/instances.json of records as `grouping.by_object` gives
    them, whose images' first identity names the collection.

    merged: a pre-training list, whose images are of several collections.
    """
    write = partial(simrec.write, merged=merged)
    return (
        TreeList(f"anns/{anns}.json", records, write, simrec.read),
        TreeList(
            f"annotations/{instances}/instances.json",
            records,
            instances_json.write,
            instances_json.read,
        ),
    )
