"""RefTR's published commands on our scripts: the names of its CONFIG.sh files and its flags.

    torchrun --nproc_per_node=4 -m tools.published_reftr configs/flickr30k/RefTR_flickr.sh
    ... -m tools.published_reftr configs/refcoco/RefTR_refcoco.sh --eval --resume=refcoco_SEG.pth

tools/run_dist_slurm.sh and tools/dist_train.sh call this. A CONFIG may also be a YAML file of ours.
Where the published script trains boxes and then masks, this trains boxes, and masks with --masks;
an evaluation takes the stage that the checkpoint is of. Its flags: tools/reftr_flags.py; all others
go to `train.py` or `test.py` as they are.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from groundwork import utils
from groundwork.jobs import evaluate, run_script, train
from groundwork.models.common.checkpoint import read_checkpoint
from groundwork.settings import RunConfig, load_config
from groundwork.tools.reftr_flags import add_flags, overrides_of

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "reftr"
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
    parser.add_argument(
        "--pretrained_model", help="DETR's checkpoint; with masks RefTR's, of the boxes"
    )
    parser.add_argument("--auto_resume", action="store_true", help="continue a run that is there")
    parser.add_argument("--output_dir", help="default: runs/SYSTEM/NAME")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides")
    add_flags(parser)
    return parser.parse_known_args(argv)


def main(argv: Sequence[str] | None = None) -> list[dict] | None:
    """Train or evaluate as the published command would; an evaluation returns its rows."""
    args, rest = parse_args(argv)
    if os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0")) == "0":
        utils.setup_logging()  # the jobs do it, too, once there is a process group
    if args.eval and not args.resume:
        raise ValueError("--eval evaluates a checkpoint: name it with --resume=CHECKPOINT")
    path, extra = choose(args)
    output_dir = args.output_dir or str(default_folder(path, extra))
    command = ["--config", str(path), "--output_dir", output_dir, *rest]
    config = load_config(path, [*extra, *args.set])
    overrides = [*extra, *overrides_of(args, config)]
    if args.eval:
        splits = ["--split", *args.test_split] if args.test_split else []
        command += ["--checkpoint", args.resume, *splits]
        argv = [*command, *_settings([*overrides, *args.set])]
        return evaluate.main(argv)
    if args.pretrained_model and not config.model.masks:
        overrides.append(f"model.init.detr={args.pretrained_model}")
    command += origin(args, config, Path(output_dir))
    train.main([*command, *_settings([*overrides, *args.set])])
    return None


def default_folder(path: Path, extra: Sequence[str] = ()) -> Path:
    """runs/SYSTEM/NAME of a configuration; of ResNet-101 another one than of ResNet-50."""
    return Path("runs", path.parent.name, path.stem + "_r101" * (R101[0] in extra))


def _settings(overrides: Sequence[str]) -> list[str]:
    return ["--set", *overrides] if overrides else []


def origin(args: argparse.Namespace, config: RunConfig, output_dir: Path) -> list[str]:
    """What a training run starts from, as arguments of train.py.

    A published stage of masks starts from the best checkpoint of its boxes.

    Raises:
        ValueError: there is no such stage before it, and no checkpoint was named.
    """
    if args.resume:
        return ["--resume", args.resume, *["--resume_model_only"] * args.resume_model_only]
    there = (output_dir / "last.ckpt").exists() or any(output_dir.glob("checkpoint_[0-9]*.pth"))
    if args.auto_resume and there:
        return ["--resume"]
    if not config.model.masks:
        return []
    if args.pretrained_model:
        return ["--checkpoint", args.pretrained_model]
    recipe = PUBLISHED.get(published_name(args.config))
    if recipe is None:  # a YAML file of ours may name its own start
        return []
    if recipe.config is None:
        raise ValueError(
            f"{args.config} goes on from a model of boxes: name it with --pretrained_model=FILE"
        )
    boxes = default_folder(CONFIGS / f"{recipe.config}.yaml", recipe.extra)
    return ["--checkpoint", str(boxes / "checkpoint_best.pth")]


def published_name(config: str) -> str:
    """A CONFIG as a key of `PUBLISHED`."""
    return config.removeprefix("./").removeprefix("configs/").removesuffix(".sh")


def choose(args: argparse.Namespace) -> tuple[Path, tuple[str, ...]]:
    """Our configuration and the overrides that make it the published one.

    Raises:
        ValueError: no such configuration. FileNotFoundError: no such checkpoint.
    """
    if args.config.endswith((".yaml", ".yml")):
        return Path(args.config), ()
    name = published_name(args.config)
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
