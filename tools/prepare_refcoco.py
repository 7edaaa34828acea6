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

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

if not __package__:  # as `python tools/prepare_refcoco.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import entries, refer
from groundwork.dataset.record import Record
from groundwork.jobs import run_script
from groundwork.tools import refer_lists
from groundwork.tools.preparation import Outputs, make_parser, print_next
from groundwork.tools.refer_lists import ReferSet

TEST_SPLITS = ("val", "testA", "testB")
SETS = (
    ReferSet(
        "refcoco", "unc", "unc", "refcoco", "refcoco-unc", ("train", *TEST_SPLITS),
        {"train references": 42404, "val sentences": 10834, "testA sentences": 5657,
         "testB sentences": 5095},
    ),
    ReferSet(
        "refcoco+", "unc", "unc+", "refcoco+", "refcocoplus-unc", ("train", *TEST_SPLITS),
        {"train references": 42278, "val sentences": 10758, "testA sentences": 5726,
         "testB sentences": 4889},
    ),
    ReferSet(
        "refcocog", "google", "gref", "refcocog", "refcocog-google", ("train", "val"),
        {"train references": 44822, "val sentences": 9536},
    ),
    ReferSet(
        "refcocog", "umd", "gref_umd", "refcocog_umd", "refcocog-umd", ("train", "val", "test"),
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
        prepare(one, args)
    if absent:
        print(f"!!! not in {args.raw}, left out: {absent}")
    print_next(args, "", list(next_commands(there)))


def next_commands(there: Sequence[ReferSet]) -> Iterator[str]:
    """What checks these sets."""
    for one in there:
        name = f"{one.folder}-{one.split_by}" if one.folder == "refcocog" else one.folder
        yield f"check_data {name} {{data}}"
        if name == "refcoco+":
            yield "make_proposals configs/Grounding_refcoco.yaml {data} --download"
            yield "check_data configs/Grounding_refcoco.yaml {data}"


def prepare(one: ReferSet, args: Namespace) -> None:
    """Write the files of one set."""
    name, options = f"{one.folder}_{one.split_by}", {"masks": args.masks}
    out = Outputs(args, name, one.title, one.sources(args.raw), options)
    if out.finished():
        return
    splits, _ = refer_lists.load(args.raw, one)
    refer_lists.write_trees(one, args.raw, splits, out, masks=args.masks)
    if one.folder == "refcoco+":
        write_test_lists(splits, out)
    out.close(refer_lists.summary(one, splits))


def write_test_lists(splits: dict[str, list[Record]], out: Outputs) -> None:
    """The split files by the rule at the top."""
    files = {
        "test": TEST_SPLITS,
        "refcoco+_train_new_path": ("train",),
        "refcoco+_val_new_path": ("val",),
        "refcoco+_test_new_path": ("testA", "testB"),
    }
    for name, parts in files.items():
        records = [record for part in parts for record in splits[part]]
        rows = refer.list_entries(records, "train2014")
        out.write(f"refcoco+/{name}.json", partial(entries.save_entries, rows=rows))


if __name__ == "__main__":
    run_script(main)
