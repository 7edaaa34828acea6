"""What small models learn from real photographs: Flickr8k's pictures, Flickr30k Entities' phrases.

    python -m benchmarks.real_flickr8k --raw ENTITIES --images PHOTOS --vocabulary VOCAB.txt \\
        --out runs/real_flickr8k

ENTITIES: the Flickr30k Entities release (tools/prepare_flickr30k.py). PHOTOS: <id>.jpg at any size;
boxes are scaled to them. VOCAB.txt: a WordPiece vocabulary such as BERT's.

Three models of benchmarks/real_flickr8k.yaml, from scratch: (a) ITC+ITM+MLM, (b) the same + AMC,
(c) SelfEQ on top of (a), whose paraphrases are the other phrases that annotators linked to the same
thing (no boxes used). Each is evaluated on the official validation and test photographs with the
Flickr30k script.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import grounding_eval_singlegpu_flickr
import Pretrain_vg
from cli import run_script
from configs import dump_yaml
from configs.mapping import parse_yaml
from report.pages import markdown, write_report
from report.results import merge_rows
from tools import prepare_flickr30k
from utils import atomic_write

HERE = Path(__file__).parent
VARIANTS = {
    "a": [{"objective": ["itc_itm_mlm"], "epochs": 1}],
    "b": [{"objective": ["itc_itm_mlm", "amc"], "epochs": 2}],
    "c": [{"objective": ["selfeq"], "epochs": 1, "steps": 300, "augment": True}],
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
    """Entries of a VG train_file -> entries of a relation_file.

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


def prepare(args: argparse.Namespace) -> Path:
    """Annotations in the published formats, once; returns their folder."""
    folder = args.out / "annotations"
    if not (folder / "relation.json").is_file():
        prepare_flickr30k.main(
            ["--raw", str(args.raw), "--out", str(folder),
             "--images", str(args.images), "--scale-to-images"]
        )  # fmt: skip
        entries = json.loads((folder / "vg_train.json").read_text(encoding="utf-8"))
        with atomic_write(folder / "relation.json") as partial:
            partial.write_text(json.dumps(paraphrase_entries(entries)), encoding="utf-8")
    return folder


def write_config(args: argparse.Namespace, annotations: Path, variant: str) -> Path:
    """The configuration of one variant, with its paths and stages filled in."""
    source = HERE / "real_flickr8k.yaml"
    config = parse_yaml(source.read_text(encoding="utf-8"), str(source))
    config["data"] |= {
        "train_file": [str(annotations / "vg_train.json")],
        "relation_file": [str(annotations / "relation.json")],
        "image_root": str(args.images),
        "text_encoder": args.vocabulary,
        "cache_dir": str(args.out / "cache"),
    }
    config["stages"] = VARIANTS[variant]
    path = args.out / f"{variant}.yaml"
    with atomic_write(path) as partial:
        partial.write_text(dump_yaml(config), encoding="utf-8")
    return path


def write_evaluation(args: argparse.Namespace, annotations: Path) -> Path:
    """The configuration of the Flickr30k evaluation at the models' size."""
    source = HERE / "real_flickr8k.yaml"
    model = parse_yaml(source.read_text(encoding="utf-8"), str(source))["model"]
    config = {
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
    with atomic_write(path) as partial:
        partial.write_text(dump_yaml(config), encoding="utf-8")
    return path


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Train and evaluate the variants; returns the rows of results.json."""
    args = parse_args(argv)
    annotations = prepare(args)
    evaluation = write_evaluation(args, annotations)
    rows: list[dict] = []
    for variant in args.variants:
        folder = args.out / variant
        config = write_config(args, annotations, variant)
        call = ["--config", str(config), "--output_dir", str(folder)]
        if variant == "c":
            call += ["--checkpoint", str(newest(args.out / "a"))]
        Pretrain_vg.main([*call, "--set", "keep=1", *args.set])
        found = grounding_eval_singlegpu_flickr.main(
            ["--config", str(evaluation), "--checkpoint", str(newest(folder)),
             "--output_dir", str(folder / "flickr30k"), "--again"]
        )  # fmt: skip
        note = f"128-px photographs, variant {variant}"
        rows = merge_rows(rows, [row | {"note": note} for row in found])
    write_report(
        args.out, rows, [], title="Real pictures: Flickr8k with Flickr30k Entities", seed=0
    )
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
