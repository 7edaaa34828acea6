"""RefCLEF (ReferItGame) as REFER publishes it to the files every script here reads.

    python -m tools.prepare_refclef --raw data/refer --out data

--raw holds refclef/refs(berkeley).p and refclef/instances.json (https://github.com/lichengunc/refer;
the server it names is gone, mirrors carry refclef.zip; the images are the IAPR TC-12 benchmark's,
saiapr_tc-12.zip). Written below --out:
  refclef/test.json                           test_file of the AMC/SelfEQ evaluation: val and test
  refclef/refclef_{train,val,test}_unique_fix_split.json   the split files never released
  annotations_resc/referit/                   RefTR, ReSC: tuples, boxes xyxy, and the trainval list
  anns/refclef.json                           RefCLIP, SimREC
  annotations/referitgame-berkeley/instances.json   ALVG, SimVG, SeqTR

Rule of the test lists: for every reference of the split in the order of refs(berkeley).p, for every
of its different sentences in their order, {image: "<image id>.jpg", text: the cleaned sentence
`sent`, ref_id, split}. A sentence that a reference repeats is taken once ("unique"). The images
19575, 19579 and 17975 are left out, as SimREC does.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

if not __package__:  # as `python tools/prepare_refclef.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.dataset.formats import entries, refer
from groundwork.dataset.record import Record
from groundwork.dataset.trees import phrase_lists
from groundwork.jobs import run_script
from groundwork.tools import refer_lists
from groundwork.tools.preparation import Outputs, make_parser, need_files
from groundwork.tools.refer_lists import ReferSet

SET = ReferSet(
    folder="refclef",
    split_by="berkeley",
    resc="referit",
    anns="refclef",
    instances="referitgame-berkeley",
    splits=("train", "val", "test"),
    # As ReSC and TransVG count expressions; REFER's own cleaning may keep a few others.
    published={"train sentences": 54127, "val sentences": 5842, "test sentences": 60103},
    collection="saiapr",
    dropped=frozenset({"19575", "19579", "17975"}),
)
NEXT = ("check_data refclef {data}", "check_data configs/Grounding_refclef.yaml {data}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    args = make_parser(__doc__).parse_args(arguments)
    names = [str(path.relative_to(args.raw)) for path in SET.sources(args.raw)]
    sources = need_files(args.raw, names, "REFER")
    out = Outputs(args, "refclef", SET.title, sources, commands=NEXT)
    if out.finished():
        return
    splits, left_out = refer_lists.load(args.raw, SET)
    # The image's file is named by its number, whatever the annotation calls it.
    splits = {
        split: [replace(record, image=f"{record.record_id}.jpg") for record in rows]
        for split, rows in splits.items()
    }
    refer_lists.write_trees(SET, args.raw, splits, out, masks=False)
    both = {"trainval": [*splits["train"], *splits["val"]]}
    for one in phrase_lists("referit", both):
        out.write_list(one)
    repeated = write_test_lists(splits, out)
    gone = ", ".join(f"{image}.jpg ({count} references)" for image, count in left_out.items())
    out.close(
        refer_lists.summary(SET, splits),
        f"left out: {gone}",
        f"sentences repeated within a reference, not in the lists: {repeated:,}",
    )


def write_test_lists(splits: dict[str, list[Record]], out: Outputs) -> int:
    """The split files by the rule at the top; returns how many repeated sentences were dropped."""
    lists = {
        split: refer.list_entries(records, unique=True, with_split=True)
        for split, records in splits.items()
    }
    files = {f"refclef_{split}_unique_fix_split": rows for split, rows in lists.items()}
    for name, rows in (files | {"test": [*lists["val"], *lists["test"]]}).items():
        out.write(f"refclef/{name}.json", partial(entries.save_entries, rows=rows))
    sentences = sum(len(record.phrases) for records in splits.values() for record in records)
    return sentences - sum(map(len, lists.values()))


if __name__ == "__main__":
    run_script(main)
