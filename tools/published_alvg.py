"""ALVG's published commands on our scripts: the names of its CONFIG.py files and its flags.

    python tools/train.py --config configs/single/ViT-base/refcoco/refcoco.py --cfg-options seed=1
    python tools/test.py --config configs/single/ViT-base/refcoco/refcoco.py --load-from BEST.pth

tools/train.py and tools/test.py give their arguments to this. A CONFIG may also be a YAML file of
ours. What is not listed here goes to `train.py` or `test.py` as it is.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from groundwork import utils
from groundwork.settings.silent import without_effect
from groundwork.tools.published_reftr import default_folder

logger = logging.getLogger("groundwork")

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "alvg"
_SETS = {
    "refcoco": "refcoco",
    "refcocoplus": "refcoco+",
    "refcocog": "refcocog_umd",
    "refcocoggoogle": "refcocog_google",
    "referit": "referit",
    "flickr30k": "flickr30k",
}
_FINE_TUNED = {"refcoco": "refcoco", "refcoco+": "refcoco+", "refcocog-umd": "refcocog_umd"}
_LARGE = "mix/ViT-large"

PUBLISHED: dict[str, str] = {
    **{f"single/ViT-base/{name}/{name}": ours for name, ours in _SETS.items()},
    **{f"single/ViT-large/{name}/{name}": f"large_{ours}" for name, ours in _SETS.items()},
    "single/ViT-base/flickr30k/flicker30": "flickr30k",  # sic
    "single/ViT-base/grefcoco/grefcoco": "grefcoco",
    f"{_LARGE}/pretrain-cocoall": "large_pretrain_coco",
    f"{_LARGE}/pretrian-mixed": "large_pretrain_mixed",  # sic
    f"{_LARGE}/pretrain-mixed": "large_pretrain_mixed",
    **{
        f"{_LARGE}/finetune_coco_all/noema#finetune#{name}": f"large_{ours}_finetune"
        for name, ours in _FINE_TUNED.items()
    },
}
"""CONFIG, less configs/ and .py -> configuration of configs/alvg. SimVG's file names and the right
spellings are known, too."""

_SIMVG = "is SimVG's, without the image enhancement and the attention losses that make it ALVG"
_DISTILLS = "trains SimVG's token branch, which ALVG does not have: the released code stops, too"
_PART = "is a part of other configurations and trains nothing by itself"
_PARTS = {
    "flickr30k": "flickr30k", "grefcoco": "grefcoco", "mixed": "large_pretrain_mixed",
    "mixed_coco_all": "large_pretrain_coco", "refcoco-unc": "refcoco",
    "refcoco-unc_vgtr": "refcoco", "refcocog-google": "refcocog_google",
    "refcocog-umd": "refcocog_umd", "refcocoplus-unc": "refcoco+",
    "referitgame-berkeley": "referit", "misc": "base",
}  # fmt: skip

WITHOUT_RECIPE: dict[str, tuple[str, str]] = {
    **{f"_base_/datasets/detection/{name}": (_PART, ours) for name, ours in _PARTS.items()
       if name != "misc"},
    **{f"_base_/datasets/{kind}/{name}": (_PART, _PARTS[name])
       for kind in ("multi-task", "segmentation")
       for name in ("refcoco-unc", "refcocog-google", "refcocog-umd", "refcocoplus-unc")},
    "_base_/misc": (_PART, "base"),
    "mix/ViT-base/pretrain-cocoall": (_SIMVG, "large_pretrain_coco"),
    "mix/ViT-base/pretrian-mixed": (_SIMVG, "large_pretrain_mixed"),
    **{f"mix/ViT-base/{folder}/noema#finetune#{name}": (why, ours)
       for folder, why in (("finetune_coco_all", _SIMVG), ("finetune_mix", _SIMVG),
                           ("two-stage_distill_coco_all", _DISTILLS),
                           ("two-stage_distill_mix", _DISTILLS))
       for name, ours in _FINE_TUNED.items()},
}  # fmt: skip
"""CONFIG -> why there is no recipe of it, and the nearest one."""

OPTIONS: dict[str, tuple[str, ...]] = {
    "data.samples_per_gpu": ("batch_size",),
    "data.workers_per_gpu": ("data.workers",),
    "img_size": ("data.image_size",),
    "max_token": ("data.max_tokens", "model.max_text_tokens"),
    "grad_norm_clip": ("clip_norm",),
    "log_interval": ("log_every",),
    "evaluate_interval": ("select.every",),
    "start_evaluate_epoch": ("select.first",),
    "optimizer_config.lr": ("optimizer.lr",),
    "optimizer_config.lr_vis_enc": ("optimizer.rates.vis_enc",),
    "optimizer_config.weight_decay": ("optimizer.weight_decay",),
    "optimizer_config.betas": ("optimizer.betas",),
    "optimizer_config.eps": ("optimizer.eps",),
    "optimizer_config.amsgrad": ("optimizer.amsgrad",),
    "scheduler_config.max_epoch": ("epochs",),
    "scheduler_config.decay_steps": ("schedule.drop_epochs",),
    "scheduler_config.warmup_epochs": ("schedule.warmup_epochs",),
    "model.vis_enc.pretrain": ("model.init.beit3",),
    "model.vis_enc.drop_path_rate": ("model.encoder.drop_path",),
    "model.vis_enc.freeze_layer": ("model.encoder.freeze_layers",),
    "model.head.num_queries": ("model.queries",),
    "model.head.embed_dim": ("model.width",),
    "model.head.num_decoder_layers": ("model.decoder_layers",),
    "model.head.num_tgqg_layers": ("model.query_layers",),
    "model.head.img_enhance": ("model.image_enhancement",),
    "model.head.score_attn_loss_weight": ("model.weights.score_attention",),
    "model.head.decoder_attn_loss_weight": ("model.weights.decoder_attention",),
}
"""Key of --cfg-options -> keys of our configuration."""

_SWITCHES = {
    "use_fp16": {"True": "precision=fp16", "False": "precision=fp32"},
    "ema": {"True": "ema=0.999", "False": "ema=null"},
}
_FLAGS = {"load_from": "--load-from FILE", "resume_from": "--resume-from FILE"}
_DEAD = (
    "lan_enc", "fusion", "word_emb_cfg", "text_max_token", "text_embed_aug", "num_encoder_layers",
    "distill_type", "prepare_target_mode", "as_target_query_thr", "num_token_mlp_layers",
    "mlp_aux_loss", "aux_distill_mode", "lr_lan_enc",
)  # fmt: skip


def resolve(config: str) -> Path:
    """Our configuration of a published name; a YAML file is taken as it is.

    Raises:
        ValueError: there is no recipe of it, with the nearest one, or no such name.
    """
    if config.endswith((".yaml", ".yml")):
        return Path(config)
    name = config.removeprefix("./").removeprefix("configs/").removesuffix(".py")
    if name in WITHOUT_RECIPE:
        why, nearest = WITHOUT_RECIPE[name]
        raise ValueError(f"{config} {why}; the nearest is configs/alvg/{nearest}.yaml")
    if name not in PUBLISHED:
        raise ValueError(
            f"{config}: no published ALVG configuration; there are {', '.join(PUBLISHED)}, or give"
            " a YAML file of configs/alvg"
        )
    return CONFIGS / f"{PUBLISHED[name]}.yaml"


def train_arguments(argv: Sequence[str] | None) -> list[str]:
    """The arguments of train.py that do what those of the published tools/train.py say."""
    parser = _parser()
    parser.add_argument("--resume-from", help="continue the run of this checkpoint")
    args, rest = parser.parse_known_args(argv)
    path = resolve(args.config)
    resume = ["--resume", args.resume_from] if args.resume_from else []
    return _arguments(args, path, args.output_dir or str(default_folder(path)), [*resume, *rest])


def test_arguments(argv: Sequence[str] | None) -> list[str]:
    """The same for the published tools/test.py."""
    parser = _parser()
    parser.add_argument("--checkpoint", "--load-from", "--finetune-from", required=True)
    args, rest = parser.parse_known_args(argv)
    path = resolve(args.config)
    folder = args.output_dir or str(default_folder(path) / "results")
    return _arguments(args, path, folder, ["--checkpoint", args.checkpoint, *rest])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # so that our own flags pass through
    )
    parser.add_argument(
        "--config",
        default="configs/single/ViT-base/grefcoco/grefcoco.py",
        help="published CONFIG.py, or a YAML file of ours (the published default: gRefCOCO's)",
    )
    parser.add_argument("--output_dir", "--work-dir", help="default: runs/SYSTEM/NAME")
    parser.add_argument(
        "--launcher", choices=("none", "pytorch"), help="as published; the environment says it"
    )
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides")
    return parser


def _arguments(
    args: argparse.Namespace, path: Path, output_dir: str, more: Sequence[str]
) -> list[str]:
    overrides = [*overrides_of(args.cfg_options), *args.set]
    settings = ["--set", *overrides] if overrides else []
    return ["--config", str(path), "--output_dir", output_dir, *more, *settings]


def overrides_of(options: Sequence[str]) -> list[str]:
    """--cfg-options as overrides of our configuration, of which they may also have the keys.

    Raises:
        ValueError: an option that is a flag here, or no `KEY=VALUE`.
    """
    inert = [(key, "the released code ignores it, too") for key in map(_key, options) if _dead(key)]
    if inert:
        utils.setup_logging()
        logger.info("--cfg-options: accepted without effect: %s", without_effect(inert))
    return [text for option in options if not _dead(_key(option)) for text in _override(option)]


def _override(option: str) -> Iterator[str]:
    key, equals, value = option.partition("=")
    if not equals:
        raise ValueError(f"--cfg-options {option}: expected KEY=VALUE")
    if key in _FLAGS:
        raise ValueError(f"--cfg-options {option}: use {_FLAGS[key]}")
    if value in _SWITCHES.get(key, {}):
        yield _SWITCHES[key][value]
        return
    for ours in OPTIONS.get(key, (key,)):
        yield f"{ours}={_yaml(value)}"


def _key(option: str) -> str:
    return option.partition("=")[0]


def _dead(key: str) -> bool:
    return key.rpartition(".")[2] in _DEAD or key.split(".")[0] in _DEAD


def _yaml(value: str) -> str:
    """A value as the published parser reads it: `1,2` and `(1, 2)` are lists, `None` is nothing."""
    if value == "None":
        return "null"
    if value.startswith("(") and value.endswith(")"):
        return f"[{value[1:-1]}]"
    return f"[{value}]" if "," in value and value[0] not in "[{" else value
