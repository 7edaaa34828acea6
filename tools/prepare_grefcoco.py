"""gRefCOCO as its authors publish it to the converted form that ALVG and SimVG train on.

    python -m tools.prepare_grefcoco --raw data/grefcoco --out data

--raw holds grefs(unc).json and instances.json, or else the GREC release's
finetune_grefcoco_{train,val,testA,testB}.json, which have no masks
(https://github.com/henghuiding/gRefCOCO). Written below --out:
  annotations/grefcoco/instances.json   {split: [{image_id, height, width, expressions, bbox, ...}]}

In "train" an entry is an image with all its expressions, as SimVG's second converter has it, in the
other splits an expression. Expressions that match nothing and those that match several objects are
kept and counted.
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path

if not __package__:  # as `python tools/prepare_grefcoco.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import finetune_grefcoco, grefcoco, instances_json, notes
from groundwork.dataset.formats.grouping import by_image
from groundwork.dataset.record import Record
from groundwork.dataset.trees import TreeList
from groundwork.jobs import run_script
from groundwork.tools.preparation import (
    Outputs,
    counts_table,
    holds,
    make_parser,
    need_files,
    progress,
)

SPLITS = ("train", "val", "testA", "testB")
NAME = "annotations/grefcoco/instances.json"
NEXT = ("check_data grefcoco {data}",)
# As the paper counts them; the released file may hold fewer.
PUBLISHED = {
    "images": 19994,
    "expressions": 278232,
    "of several objects": 80022,
    "of nothing": 32202,
}


def open_raw(raw: Path) -> tuple[list[Path], Iterator[Record]]:
    """(the owners' files in `raw`, what they hold): the references, or else GREC's files.

    Raises:
        FileNotFoundError: neither is complete.
    """
    names = [finetune_grefcoco.NAME.format(split) for split in SPLITS]
    if not (raw / "grefs(unc).json").is_file() and (raw / names[0]).is_file():
        files = need_files(raw, names, "GREC, beside gRefCOCO,")
        return files, chain.from_iterable(map(finetune_grefcoco.read, files))
    refs, instances = need_files(raw, ["grefs(unc).json", "instances.json"], "gRefCOCO")
    return [refs, instances], grefcoco.read(refs, instances)


def count(records: Iterable[Record]) -> Counter[str]:
    """Images and kinds of expressions, all and per split."""
    counts = Counter[str]()
    counts["images"] = len({record.record_id for record in records})
    for record in records:
        for phrase in record.phrases:
            counts["expressions"] += 1
            counts["of several objects"] += len(phrase.boxes) > 1
            counts["of nothing"] += phrase.matches_nothing
            counts[f"{record.split} expressions"] += 1
    return counts


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    args = make_parser(__doc__).parse_args(arguments)
    sources, found = open_raw(args.raw)
    out = Outputs(args, "grefcoco", "gRefCOCO", sources, commands=NEXT)
    if out.finished():
        return
    with notes.collected() as taken:
        records = list(progress(found, unit="records", what="gRefCOCO"))
    counts, rows = count(records), list(by_image(records))
    read = out.write_list(TreeList(NAME, rows, instances_json.write, instances_json.read))
    out.close(
        counts_table("gRefCOCO", counts, PUBLISHED),
        *(f"{note.count:,} times: {note.text}" for note in taken),
        *holds(NAME, read, counts["expressions"], "expressions"),
    )


if __name__ == "__main__":
    run_script(main)
