"""RefCOCO, RefCOCO+ and RefCOCOg as REFER publishes them to the files every script here reads.

    python -m tools.prepare_refcoco --raw data/refer --out data [--masks]

--raw holds refcoco/refs(unc).p, refcoco+/refs(unc).p, refcocog/refs(google).p and refs(umd).p, and
an instances.json in each folder (https://github.com/lichengunc/refer; the server it names is gone,
mirrors carry the same refcoco.zip, refcoco+.zip and refcocog.zip). Sets that are not there are
named and left out; at least one must be. Written below --out:
  refcoco+/test.json                          test_file of AMC and SelfEQ: val, testA, testB
  refcoco+/refcoco+_{train,val,test}_new_path.json   the split files that SelfEQ never released
  annotations_resc/{unc,unc+,gref,gref_umd}/  RefTR, ReSC: tuples, boxes xywh
  refcoco/anns/, refcoco/masks/               RefTR with masks (the .npy files only with --masks)
  anns/{refcoco,refcoco+,refcocog,refcocog_umd}.json   RefCLIP, SimREC; refcocog.json is google's
  annotations/{refcoco-unc,...}/instances.json         ALVG, SimVG, SeqTR, with masks

Rule of the test lists: for every reference of the split in the order of refs(unc).p, for every of
its sentences in their order, {image: "train2014/" + file name of the image, text: the cleaned
sentence `sent`, ref_id}. "test" is testA and testB together; the reference says which.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path

if not __package__:  # as `python tools/prepare_refcoco.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.record import Record
from groundwork.jobs import run_script
from groundwork.tools import refer_lists
from groundwork.tools.preparation import Outputs, make_parser, print_next, stamp
from groundwork.tools.refer_lists import ReferSet

TEST_SPLITS = ("val", "testA", "testB")
SETS = (
    ReferSet(
        "refcoco", "unc", "unc", ("refcoco", "refcoco_unc"), "refcoco", "refcoco-unc",
        ("train", *TEST_SPLITS),
        {"train references": 42404, "val sentences": 10834, "testA sentences": 5657,
         "testB sentences": 5095},
    ),
    ReferSet(
        "refcoco+", "unc", "unc+", ("refcoco+", "refcoco+_unc"), "refcoco+", "refcocoplus-unc",
        ("train", *TEST_SPLITS),
        {"train references": 42278, "val sentences": 10758, "testA sentences": 5726,
         "testB sentences": 4889},
    ),
    ReferSet(
        "refcocog", "google", "gref", ("refcocog", "refcocog_google"), "refcocog",
        "refcocog-google", ("train", "val"), {"train references": 44822, "val sentences": 9536},
    ),
    ReferSet(
        "refcocog", "umd", "gref_umd", ("refcocog", "refcocog_umd"), "refcocog_umd",
        "refcocog-umd", ("train", "val", "test"),
        {"train references": 42226, "val sentences": 4896, "test sentences": 9602},
    ),
)  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    parser = make_parser(__doc__)
    parser.add_argument("--masks", action="store_true", help="write a .npy mask per reference")
    args = parser.parse_args(arguments)
    there = [one for one in SETS if all(path.is_file() for path in one.sources(args.raw))]
    absent = ", ".join(one.title for one in SETS if one not in there)
    if not there:
        raise FileNotFoundError(
            f"{args.raw} holds none of {absent}: it must have refcoco/refs(unc).p,"
            " refcoco/instances.json and so on, as REFER publishes them"
        )
    for one in there:
        prepare(one, args.raw, args.out, args)
    if absent:
        print(f"!!! not in {args.raw}, left out: {absent}")
    if not args.dry_run:
        print_next(args.out, "", *next_commands(there))


def next_commands(there: Sequence[ReferSet]) -> Iterator[str]:
    """What checks these sets."""
    for one in there:
        name = f"{one.folder}-{one.split_by}" if one.folder == "refcocog" else one.folder
        yield f"check_data {name} {{data}}"
        if name == "refcoco+":
            yield "make_proposals configs/Grounding_refcoco.yaml {data} --download"
            yield "check_data configs/Grounding_refcoco.yaml {data}"


def prepare(one: ReferSet, raw: Path, folder: Path, args: Namespace) -> None:
    """Write the files of one set."""
    name = f"{one.folder}_{one.split_by}"
    key = stamp(one.sources(raw), {"masks": args.masks})
    out = Outputs(folder, name, key, dry_run=args.dry_run, again=args.again)
    if out.finished():
        print(f"{folder}: nothing to do for {one.title}\n{out.finished()}")
        return
    splits, _ = refer_lists.load(raw, one)
    refer_lists.write_trees(one, raw, splits, out, masks=args.masks)
    if one.folder == "refcoco+":
        write_test_lists(splits, out)
    out.close(refer_lists.summary(one, splits))


def write_test_lists(splits: dict[str, list[Record]], out: Outputs) -> None:
    """The split files by the rule at the top."""

    def entries(*names: str) -> list[dict]:
        records = [record for name in names for record in splits[name]]
        return refer_lists.list_entries(records, "train2014", unique=False, with_split=False)

    out.write_list("refcoco+/test.json", entries(*TEST_SPLITS))
    out.write_list("refcoco+/refcoco+_train_new_path.json", entries("train"))
    out.write_list("refcoco+/refcoco+_val_new_path.json", entries("val"))
    out.write_list("refcoco+/refcoco+_test_new_path.json", entries("testA", "testB"))


if __name__ == "__main__":
    run_script(main)
