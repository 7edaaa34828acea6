"""How alike a checkpoint explains a phrase and its paraphrase: what SelfEQ is about.

    python -m tools.self_consistency --config configs/Grounding_refcoco.yaml \\
        --checkpoint checkpoint.pth --output_dir results \\
        --pairs seen=paraphrases_seen.json heldout=paraphrases_heldout.json

Each file is a list of {image, phrase, paraphrase, box}; its name before "=" is the split it is
reported as. The configuration says how images are read and how large the model is; its own
annotation files are not used.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from torch.utils.data import DataLoader

from groundwork import metrics, utils
from groundwork.benchmarks import BENCHMARKS
from groundwork.dataset.formats import paraphrases
from groundwork.dataset.image_text.dataset import EvalDataset
from groundwork.dataset.image_text.transforms import EvalTransform
from groundwork.dataset.loader import make_eval_loader
from groundwork.dataset.text import load_tokenizer
from groundwork.jobs import check_vocabulary, run_script
from groundwork.jobs.evaluation import checkpoint_files, with_remarks
from groundwork.jobs.folders import run_folder
from groundwork.jobs.grounding import describe, max_words, predict, require_positions
from groundwork.report.pages import markdown
from groundwork.report.predictions import Prediction, write_predictions
from groundwork.report.results import chance_rows, score_rows, update_rows
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides
from groundwork.settings.schema import GroundingConfig


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a Grounding_*.yaml")
    parser.add_argument("--checkpoint", required=True, help="a .pth file, or a folder of them")
    parser.add_argument("--pairs", nargs="+", required=True, metavar="SPLIT=FILE")
    parser.add_argument("--output_dir", help="default: runs/CONFIGURATION/self_consistency")
    parser.add_argument("--text_encoder", help="tokeniser: hub name, folder, or vocab.txt")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    args = parser.parse_args(argv)
    if not all("=" in pair for pair in args.pairs):
        parser.error("--pairs takes SPLIT=FILE, such as heldout=paraphrases_heldout.json")
    return args


def main(argv: Sequence[str] | None = None) -> list[dict]:
    """Run with command line arguments `argv`; returns the rows of results.json."""
    args = parse_args(argv)
    utils.setup_logging()
    encoder = [f"data.text_encoder={args.text_encoder}"] if args.text_encoder else []
    config = load_config(
        args.config, "grounding", [*root_overrides(args.data), *args.set, *encoder]
    )
    files = dict(pair.split("=", 1) for pair in args.pairs)
    loader = build_loader(config, files)
    output_dir = Path(args.output_dir or run_folder(args.config) / "self_consistency")
    rows: list[dict] = []
    for file in checkpoint_files(Path(args.checkpoint)):
        about = replace(
            describe(config, file),
            benchmark=f"{config.benchmark.rpartition('/')[0] or 'own'}/paraphrases",
            splits=tuple(files),
        )
        found, remarks = predict(config, file, loader, {}, utils.choose_device(args.device))
        folder = output_dir / file.stem
        about = with_remarks(about, remarks, folder)
        pairs = join_pairs(found)
        write_predictions(folder, about, pairs)
        rows += score_rows(about, pairs) + chance_rows(about, pairs)
    rows = update_rows(output_dir / "results.json", rows)
    print(markdown(rows))
    return rows


def build_loader(config: GroundingConfig, files: dict[str, str]) -> DataLoader:
    """Phrases and paraphrases of all files, by the resizing rule of the configured benchmark."""
    benchmark, data = BENCHMARKS[config.benchmark], config.data
    dataset = EvalDataset(
        list(chain.from_iterable(paraphrases.read(file, split) for split, file in files.items())),
        data.image_root,
        EvalTransform(config.model.image_size, benchmark.resize),
        max_words(config),
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
        opener=data.opener,
        strict=data.strict,
    )
    tokenizer = load_tokenizer(data.text_encoder)
    check_vocabulary(config, tokenizer)
    require_positions(dataset, tokenizer, config)
    return make_eval_loader(dataset, tokenizer, config.batch_size, workers=data.workers)


def join_pairs(predictions: Sequence[Prediction]) -> list[Prediction]:
    """Phrase, paraphrase, phrase, paraphrase, ... -> one prediction per pair."""
    phrases, others = predictions[0::2], predictions[1::2]
    return [
        replace(
            phrase,
            paraphrase=other.phrase,
            paraphrase_point=other.point,
            correlation=float(
                metrics.map_correlation(phrase.heatmap[None], other.heatmap[None])[0]
            ),
        )
        for phrase, other in zip(phrases, others, strict=True)
    ]


if __name__ == "__main__":
    run_script(main)
