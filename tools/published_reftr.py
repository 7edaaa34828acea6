"""RefTR's published commands on our scripts: the names of its CONFIG.sh files and its flags.

    torchrun --nproc_per_node=4 -m tools.published_reftr configs/flickr30k/RefTR_flickr.sh
    ... -m tools.published_reftr configs/refcoco/RefTR_refcoco.sh --eval --resume=refcoco_SEG.pth

tools/run_dist_slurm.sh and tools/dist_train.sh call this. A CONFIG may also be a YAML file of ours.
Where the published script trains boxes and then masks, this trains boxes, and masks with --masks;
an evaluation takes the stage that the checkpoint is of. What is not listed here goes to `train.py`
or `test.py` as it is.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import test
import train
from cli import run_script
from configs import load_config
from models.common.checkpoint import read_checkpoint

CONFIGS = Path(__file__).parent.parent / "configs" / "reftr"
R101 = ("model.backbone.name=resnet101", "model.init.detr=${weights}/detr-r101-2c7b67e5.pth")
R101_ALONE = R101[:1]


class Recipe(NamedTuple):
    """config: of the boxes (None: the recipe is of masks only). masks: of the masks. extra:
    overrides."""

    config: str | None
    masks: str | None = None
    extra: tuple[str, ...] = ()


PUBLISHED: dict[str, Recipe] = {
    "flickr30k/RefTR_flickr": Recipe("flickr30k"),
    "flickr30k/RefTR_flickr_roberta": Recipe("flickr30k_roberta"),
    "flickr30k/Ref_flickr_pt": Recipe("flickr30k_pt"),
    "flickr30k/Ref_flickr_pt_101": Recipe("flickr30k_pt", extra=R101_ALONE),
    "referit/RefTR_referit": Recipe("referit"),
    "referit/RefTR_referit_101": Recipe("referit", extra=R101),
    "referit/RefTR_referit_PT": Recipe("referit_pt"),
    "referit/RefTR_referit_101_PT": Recipe("referit_pt", extra=R101_ALONE),
    "refcoco/RefTR_refcoco": Recipe("refcoco", "refcoco_res"),
    "refcoco/RefTR_refcoco_101": Recipe("refcoco", "refcoco_res", R101),
    "refcoco+/RefTR_refcoco+": Recipe("refcoco+", "refcoco+_res"),
    "refcoco+/RefTR_refcoco+_101": Recipe("refcoco+", "refcoco+_res", R101),
    "refcoco+/RefTR_SEG_refcoco+": Recipe(None, "refcoco+_res"),
    "refcoco+/RefTR_SEG_refcoco+_101": Recipe(None, "refcoco+_res", R101_ALONE),
    "refcocog/RefTR_refcocog": Recipe("refcocog_umd", "refcocog_umd_res"),
    "refcocog/RefTR_refcocog_101": Recipe("refcocog_umd", "refcocog_umd_res", R101),
    "refcocog/RefTR_SEG_refcocog": Recipe(None, "refcocog_umd_res"),
    "refcocog/RefTR_SEG_refcocog_101": Recipe(None, "refcocog_umd_res", R101_ALONE),
}
# flag -> key of our configuration.
FLAGS = {
    "batch_size": "batch_size",
    "clip_max_norm": "clip_norm",
    "dec_layers": "model.decoder_layers",
    "enc_layers": "model.encoder_layers",
    "epochs": "epochs",
    "lr": "optimizer.lr",
    "lr_backbone": "optimizer.rates",
    "lr_mask_branch_proj": "optimizer.factors",
    "num_workers": "data.workers",
    "weight_decay": "optimizer.weight_decay",
}
# flag -> the parts of the model that its number is for.
PARTS = {
    "lr_backbone": ("img_backbone.0", "lang_backbone"),
    "lr_mask_branch_proj": ("bbox_attention", "mask_head"),
}


def parse_args(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """The published arguments, and the rest."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # so that our own flags pass through
    )
    parser.add_argument("config", help="published CONFIG.sh, or a YAML file of ours")
    parser.add_argument("--eval", action="store_true", help="evaluate the checkpoint of --resume")
    parser.add_argument("--masks", action="store_true", help="the segmentation stage")
    parser.add_argument("--resume", help="checkpoint to evaluate, or to continue the run of")
    parser.add_argument(
        "--resume_model_only", action="store_true", help="take only the weights of --resume"
    )
    parser.add_argument("--pretrained_model", dest="start", help="weights")
    parser.add_argument("--auto_resume", action="store_true", help="continue a run that is there")
    parser.add_argument("--output_dir", help="default: runs/SYSTEM/NAME")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides")
    for flag, key in FLAGS.items():
        parser.add_argument(f"--{flag}", help=f"our {key}")
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> list[dict] | None:
    """Train or evaluate as the published command would; an evaluation returns its rows."""
    args, rest = parse_args(argv)
    if args.eval and not args.resume:
        raise ValueError("--eval evaluates a checkpoint: name it with --resume=CHECKPOINT")
    config, extra = choose(args)
    output_dir = args.output_dir or f"runs/{config.parent.name}/{config.stem}"
    command = ["--config", str(config), "--output_dir", output_dir, *rest]
    overrides = [*extra, *settings_of(args, config), *args.set]
    settings = ["--set", *overrides] if overrides else []
    if args.eval:
        return test.main([*command, "--checkpoint", args.resume, *settings])
    train.main([*command, *origin(args, Path(output_dir)), *settings])
    return None


def settings_of(args: argparse.Namespace, config: Path) -> list[str]:
    """The published flags of `FLAGS` that were given, as overrides of a configuration."""
    masks = load_config(config, "referring").model.masks
    found = []
    for flag, key in FLAGS.items():
        value = getattr(args, flag)
        # Without masks there is no branch that its rate could be of; the release ignores it.
        if value is None or (flag == "lr_mask_branch_proj" and not masks):
            continue
        parts = PARTS.get(flag)
        value = f"{{{', '.join(f'{part}: {value}' for part in parts)}}}" if parts else value
        found.append(f"{key}={value}")
    return found


def origin(args: argparse.Namespace, output_dir: Path) -> list[str]:
    """What a training run starts from, as arguments of train.py."""
    if args.resume:
        return ["--resume", args.resume, *["--resume_model_only"] * args.resume_model_only]
    there = (output_dir / "last.ckpt").exists() or any(output_dir.glob("checkpoint_[0-9]*.pth"))
    if args.auto_resume and there:
        return ["--resume"]
    return ["--checkpoint", args.start] if args.start else []


def choose(args: argparse.Namespace) -> tuple[Path, tuple[str, ...]]:
    """Our configuration and the overrides that make it the published one.

    Raises:
        ValueError: no such configuration. FileNotFoundError: no such checkpoint.
    """
    if args.config.endswith((".yaml", ".yml")):
        return Path(args.config), ()
    name = args.config.removeprefix("./").removeprefix("configs/").removesuffix(".sh")
    if name not in PUBLISHED:
        raise ValueError(
            f"{args.config}: no published RefTR configuration; there are "
            f"{', '.join(PUBLISHED)}, or give a YAML file of configs/reftr"
        )
    recipe = PUBLISHED[name]
    if recipe.config is None:
        wanted = recipe.masks
    elif args.masks or (args.eval and recipe.masks and has_masks(args.resume)):
        wanted = recipe.masks
    else:
        wanted = recipe.config
    if wanted is None:
        raise ValueError(f"{args.config} has no segmentation stage; leave --masks out")
    masks_only = wanted == recipe.masks
    # A segmentation stage starts from our own checkpoint, of the same backbone.
    return CONFIGS / f"{wanted}.yaml", recipe.extra[:1] if masks_only else recipe.extra


def has_masks(checkpoint: str) -> bool:
    """Does the file, or the first one of the folder, hold a segmentation model?"""
    path = Path(checkpoint)
    path = next(iter(sorted(path.glob("*.pth"))), path) if path.is_dir() else path
    content = read_checkpoint(path)
    return any("mask_head." in key for key in content["model"])


if __name__ == "__main__":
    run_script(main)
