"""What small models learn from real photographs: Flickr8k's images, Flickr30k Entities' phrases.

    python -m experiments.real_flickr8k --raw ENTITIES --images PHOTOS --vocabulary VOCAB.txt \\
        --out runs/real_flickr8k

ENTITIES: the Flickr30k Entities release (tools/prepare_flickr30k.py). PHOTOS: <id>.jpg at any size;
boxes are scaled to them. VOCAB.txt: a WordPiece vocabulary such as BERT's.

Three models of experiments/real_flickr8k.yaml, from scratch: (a) ITC+ITM+MLM on whole captions,
(b) the same + AMC on phrases with boxes, (c) SelfEQ on top of (a), whose paraphrases are the other
phrases that annotators linked to the same thing (no boxes used). Each is evaluated on the official
validation and test photographs with the Flickr30k script, after every epoch; the checkpoint that
points best on validation stands in the table.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from groundwork import engine
from groundwork.dataset.formats import flickr30k
from groundwork.dataset.formats.entries import save_entries
from groundwork.files.safe import write_text
from groundwork.jobs import evaluate, run_script, train
from groundwork.report.pages import markdown, write_report
from groundwork.report.results import Row, merge_rows
from groundwork.settings import dump_yaml
from groundwork.settings.parsing import parse_yaml
from groundwork.tools import prepare_flickr30k

HERE = Path(__file__).parent
# Stages, and the weights of the image-text losses: beside AMC they must not outweigh it.
VARIANTS: dict[str, dict[str, Any]] = {
    "a": {
        "stages": [{"objective": ["itc_itm_mlm"], "epochs": 4, "train": ["captions.json"]}],
        "weights": {"ita": 1.0, "itm": 1.0, "mlm": 0.5},
    },
    "b": {
        "stages": [{"objective": ["itc_itm_mlm", "amc"], "epochs": 5, "steps": 100}],
        "weights": {"ita": 0.03, "itm": 0.03, "mlm": 0.03},
    },
    "c": {
        "stages": [{"objective": ["selfeq"], "epochs": 1, "steps": 200}],
        "weights": {"ita": 1.0, "itm": 1.0, "mlm": 0.5},
    },
}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--raw", type=Path, required=True, help="Flickr30k Entities")
    parser.add_argument("--images", type=Path, required=True, help="folder of <id>.jpg")
    parser.add_argument("--vocabulary", required=True, help="vocab.txt or its folder")
    parser.add_argument("--out", type=Path, default=Path("runs/real_flickr8k"))
    parser.add_argument("--variants", nargs="+", choices=sorted(VARIANTS), default=sorted(VARIANTS))
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    return parser.parse_args(argv)


def paraphrase_entries(entries: Sequence[dict]) -> list[dict]:
    """Entries of a VG list -> entries of one with paraphrases.

    All captions of an entry name the same thing, so each is a paraphrase of the others as a whole.
    """
    related = []
    for entry in entries:
        captions = list(dict.fromkeys(caption.lower() for caption in entry["caption"]))
        for caption in captions:
            others = [other for other in captions if other != caption]
            if others:
                relation = {"group": caption, "synonym": others}
                related.append(entry | {"caption": caption, "relation": relation})
    return related


def caption_entries(annotations: Path) -> list[dict]:
    """Entries of a VG list without boxes: the captions of every training photograph."""
    captions: dict[str, list[str]] = {}
    for record in flickr30k.read(annotations, "train"):
        captions.setdefault(record.image, []).append(record.sentence)
    return [{"image": image, "caption": texts} for image, texts in captions.items()]


def prepare(args: argparse.Namespace) -> Path:
    """Annotations in the published formats, once; returns their folder."""
    folder = args.out / "annotations"
    # The last file that is written says that all are there.
    if not (folder / "relation.json").is_file():
        prepare_flickr30k.main(
            ["--raw", str(args.raw), "--out", str(folder),
             "--images", str(args.images), "--scale-to-images"]
        )  # fmt: skip
        entries = json.loads((folder / "vg_train.json").read_text(encoding="utf-8"))
        save_entries(folder / "captions.json", caption_entries(folder))
        save_entries(folder / "relation.json", paraphrase_entries(entries))
    return folder


def write_config(args: argparse.Namespace, annotations: Path, variant: str) -> Path:
    """The configuration of one variant, with its paths and stages filled in."""
    source = HERE / "real_flickr8k.yaml"
    config = parse_yaml(source.read_text(encoding="utf-8"), str(source))
    config["data"] |= {
        "train": {
            "train": [str(annotations / "vg_train.json")],
            "relation": [str(annotations / "relation.json")],
        },
        "image_root": str(args.images),
        "text_encoder": args.vocabulary,
        "cache_dir": str(args.out / "cache"),
    }
    config["model"]["objectives"]["itc_itm_mlm"]["weights"] = VARIANTS[variant]["weights"]
    config["stages"] = [
        stage | {"train": {"train": [str(annotations / name) for name in stage["train"]]}}
        if "train" in stage
        else stage
        for stage in VARIANTS[variant]["stages"]
    ]
    path = args.out / f"{variant}.yaml"
    write_text(path, dump_yaml(config))
    return path


def write_evaluation(args: argparse.Namespace, annotations: Path) -> Path:
    """The configuration of the Flickr30k evaluation at the models' size."""
    source = HERE / "real_flickr8k.yaml"
    model = parse_yaml(source.read_text(encoding="utf-8"), str(source))["model"]
    config = {
        "system": "albef",
        "benchmark": "flickr30k",
        "data": {
            "flickr_data": str(annotations),
            "image_root": str(args.images),
            "text_encoder": args.vocabulary,
            "workers": 1,
        },
        "model": model,
    }
    path = args.out / "evaluation.yaml"
    write_text(path, dump_yaml(config))
    return path


def best_on_validation(rows: Sequence[Row], note: str) -> list[Row]:
    """Those of the checkpoint that points best on val, and those of no checkpoint (chance)."""
    pointing = {
        row["checkpoint"]: row["value"]
        for row in rows
        if row["checkpoint"] and (row["split"], row["metric"]) == ("val", "pointing")
    }
    best = max(pointing, key=pointing.__getitem__)
    kept = [row for row in rows if row["checkpoint"] in ("", best)]
    return [row | {"note": note} if row["checkpoint"] else row for row in kept]


def main(argv: Sequence[str] | None = None) -> list[Row]:
    """Train and evaluate the variants; returns the rows of results.json."""
    args = parse_args(argv)
    annotations = prepare(args)
    evaluation = write_evaluation(args, annotations)
    rows: list[Row] = []
    for variant in args.variants:
        folder = args.out / variant
        config = write_config(args, annotations, variant)
        call = ["--config", str(config), "--output_dir", str(folder)]
        if variant == "c":
            call += ["--checkpoint", str(newest(args.out / "a"))]
        if args.set:
            call += ["--set", *args.set]
        engine.remove_run(folder)
        train.main(call)
        found = evaluate.main(
            ["--config", str(evaluation), "--checkpoint", str(folder),
             "--output_dir", str(folder / "flickr30k"), "--again"]
        )  # fmt: skip
        rows = merge_rows(rows, best_on_validation(found, f"128-px photographs, variant {variant}"))
    write_report(args.out, rows, [], title="Real images: Flickr8k with Flickr30k Entities")
    print(markdown(rows))
    return rows


def newest(folder: Path) -> Path:
    """The last checkpoint of a finished run.

    Raises:
        FileNotFoundError: there is none; train that variant first.
    """
    found = sorted(folder.glob("checkpoint_*.pth"))
    if not found:
        raise FileNotFoundError(f"{folder} holds no checkpoint; run variant {folder.name} first")
    return found[-1]


if __name__ == "__main__":
    run_script(main)
