"""How alike a checkpoint explains a phrase and its paraphrase: what SelfEQ is about.

    python -m tools.self_consistency --config configs/Grounding_refcoco.yaml \\
        --checkpoint checkpoint.pth --output_dir results \\
        --pairs seen=paraphrases_seen.json heldout=paraphrases_heldout.json

Each file is a list of {image, phrase, paraphrase, box}; its name before "=" is the split it is
reported as. The configuration says how images are read and how large the model is; its own
annotation files are not used.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from groundwork import metrics, utils
from groundwork.dataset.formats import paraphrases
from groundwork.jobs import run_script
from groundwork.jobs.evaluate import predict
from groundwork.jobs.evaluation import checkpoint_files, with_remarks
from groundwork.jobs.folders import run_folder
from groundwork.jobs.forms import FORMS
from groundwork.jobs.image_text import evaluation_dataset, evaluation_of
from groundwork.jobs.tokenizers import load_texts
from groundwork.models import SYSTEMS
from groundwork.report.pages import markdown
from groundwork.report.prediction_files import write_predictions
from groundwork.report.predictions import Prediction
from groundwork.report.results import chance_rows, score_rows, update_rows
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides


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
        args.config, [*root_overrides(args.data), *args.set, *encoder], purpose="evaluation"
    )
    files = dict(pair.split("=", 1) for pair in args.pairs)
    output_dir = Path(args.output_dir or run_folder(args.config) / "self_consistency")
    device, checkpoints = utils.choose_device(args.device), checkpoint_files(Path(args.checkpoint))
    system, tokenizer = SYSTEMS[config.system], load_texts(config, checkpoints[0])
    parts = system.build(config.model, tokenizer, training=False)
    parts.evaluated.to(device).eval()
    records = chain.from_iterable(paraphrases.read(file, split) for split, file in files.items())
    evaluation = evaluation_of(config, evaluation_dataset(config, list(records)), tokenizer)
    form = FORMS[system.samples]
    rows: list[dict] = []
    for file in checkpoints:
        about = replace(
            form.describe(config, file, tuple(files)),
            benchmark=f"{str(config.benchmark).rpartition('/')[0] or 'own'}/paraphrases",
        )
        system.load(parts.model, file)
        found, remarks = predict(config, parts, evaluation, device, name=file.name)
        folder = output_dir / file.stem
        about = with_remarks(about, remarks, folder)
        pairs = join_pairs(found)
        write_predictions(folder, about, pairs)
        rows += score_rows(about, pairs) + chance_rows(about, pairs)
    rows = update_rows(output_dir / "results.json", rows)
    print(markdown(rows))
    return rows


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
