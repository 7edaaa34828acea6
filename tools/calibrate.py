"""Make "is it there at all?" a probability with a threshold, for one checkpoint of any system.

    python -m tools.calibrate --checkpoint checkpoints/quickstart_amc \\
        --config configs/tiny/Grounding_refcoco.yaml --wrong-images --evaluate-on testA testB

Asks the checkpoint about every phrase of a validation split, with a target in its image or without,
as `Grounder` asks it, fits a logistic regression to its evidence (ALBEF: the log odds of a match;
ALVG: of the most probable query; SimREC: of the objectness; RefCLIP: the similarity; RefTR has
none) and takes the threshold of the best balanced accuracy there. `Grounder.load` finds the file
that this writes: CHECKPOINT.present.json beside the file, present.json in a saved folder.

Phrases without target are those that the annotations mark so (gRefCOCO's). --wrong-images makes
some: each phrase once more about another image whose annotations do not contain it. The probability
is that of a collection in which as many phrases have no target.
"""

import argparse
from collections.abc import Sequence

from groundwork import utils
from groundwork.jobs import plugins, presence, run_script
from groundwork.jobs.calibration import answers_of, fit, sample_of, with_held_out
from groundwork.jobs.grounder import Grounder
from groundwork.jobs.model_card import renew_card
from groundwork.jobs.presence import Calibration
from groundwork.jobs.recognition import load_system
from groundwork.settings import load_config
from groundwork.settings.roots import root_overrides


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", required=True, help="a file, or a saved folder")
    parser.add_argument("--config", required=True, help="whose splits are read, of any system")
    parser.add_argument("--split", default="val", help="that is fitted on")
    parser.add_argument("--evaluate-on", nargs="+", default=[], metavar="SPLIT", help="held out")
    parser.add_argument("--wrong-images", action="store_true", help="phrases of other images, too")
    parser.add_argument("--seed", type=int, default=0, help="of the other images")
    parser.add_argument("--model", help="configuration of a checkpoint without one")
    parser.add_argument("--tokenizer", help="of the checkpoint: hub name, folder, or vocab.txt")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config")
    parser.add_argument("--plugin", nargs="+", default=[], metavar="FOLDER", help="own systems")
    args = parser.parse_args(argv)
    if args.split in args.evaluate_on:
        parser.error(f"--evaluate-on {args.split}: is what is fitted on; name another split")
    return args


def main(argv: Sequence[str] | None = None) -> Calibration:
    """Run with command line arguments `argv`; returns what was written."""
    args = parse_args(argv)
    utils.setup_logging()
    plugins.load(args.plugin)
    changes = [*root_overrides(args.data), *args.set]
    config = load_config(args.config, changes, purpose="evaluation")
    samples = [
        sample_of(config, split, wrong_images=args.wrong_images, seed=args.seed)
        for split in (args.split, *args.evaluate_on)
    ]
    device = utils.choose_device(args.device)
    # Without the calibration that may lie there, which may be of other weights.
    loaded = load_system(
        args.checkpoint, device=device, config=args.model, tokenizer=args.tokenizer, data=args.data
    )
    grounder = Grounder(loaded)
    fitted_on, *held_out = (answers_of(grounder, sample) for sample in samples)
    weights, evidence = presence.weights_hash(loaded.path), str(grounder.evidence)
    calibration = with_held_out(fit(fitted_on, weights=weights, evidence=evidence), held_out)
    print(calibration)
    print(presence.write(calibration, loaded.path))
    renew_card(loaded.path, calibration)
    return calibration


if __name__ == "__main__":
    run_script(main)
