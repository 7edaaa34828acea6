"""RefTR's 78 published flags: the key of our configuration that each one sets, or what to do.

A flag that the published code reads but does not use changes nothing here either, which the log
says. One that has no equal here is an error that names the `--set` key, unless it has the published
default.
"""

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from groundwork.settings import RunConfig
from groundwork.settings.silent import without_effect

logger = logging.getLogger("groundwork")


@dataclass(frozen=True)
class Sets:
    """The value of the flag is that of a key; `value`: a flag without value sets this."""

    key: str
    value: str | None = None


@dataclass(frozen=True)
class Inert:
    """The flag changes nothing, and why."""

    reason: str


@dataclass(frozen=True)
class Instead:
    """The flag is refused, and what to do. default: the published value, which is taken."""

    remedy: str
    default: str = ""


@dataclass(frozen=True)
class Joint:
    """The flag has an effect together with others or with the configuration: a name of `_JOINT`."""

    by: str


Effect = Sets | Inert | Instead | Joint
_UNUSED = Inert("the published code does not use it either")
_DATA = "give another CONFIG, or --set data.train={split: [FILE]} data.evaluate={split: [FILE]}"
_FREEZES = Inert(
    "the published code ignores it, too; --set model.backbone.train_from=nothing"
    " optimizer.rates.lang_backbone=0 freezes both networks"
)

VALUES: dict[str, Effect] = {
    **dict.fromkeys((
        "lr_decay", "position_embedding_scale", "num_queries", "dec_n_points", "enc_n_points",
        "img_bert_config", "bbox_loss_topk", "set_cost_class", "set_cost_bbox",
        "set_cost_giou", "cls_loss_coef", "focal_alpha", "dataset_file", "coco_path",
    ), _UNUSED),
    "lr": Sets("optimizer.lr"),
    "lr_backbone": Joint("networks"),
    "lr_mask_branch_proj": Joint("masks"),
    "batch_size": Sets("batch_size"),
    "weight_decay": Sets("optimizer.weight_decay"),
    "epochs": Sets("epochs"),
    "lr_drop": Joint("schedule"),
    "warm_up_epoch": Joint("schedule"),
    "lr_schedule": Joint("schedule"),
    "clip_max_norm": Joint("clipping"),
    "ckpt_cycle": Inert("every epoch's checkpoint is kept; --set keep=N keeps the newest N"),
    "reftr_type": Instead("there is one network for one and for several phrases, which"
                          " data.multi_phrase chooses", "transformer_single_phrase"),
    "ablation": Joint("ablation"),
    "backbone": Sets("model.backbone.name"),
    "position_embedding": Instead("positions are sines; model.position_temperature shapes them",
                                  "sine"),
    "num_feature_levels": Sets("model.feature_levels"),
    "enc_layers": Sets("model.encoder_layers"),
    "dec_layers": Sets("model.decoder_layers"),
    "dim_feedforward": Sets("model.ffn"),
    "hidden_dim": Sets("model.width"),
    "dropout": Sets("model.dropout"),
    "nheads": Sets("model.heads"),
    "bert_model": Joint("language"),
    "max_lang_seq": Sets("model.max_text_tokens"),
    "num_queries_per_phrase": Sets("model.queries_per_phrase"),
    "mask_loss_coef": Sets("model.weights.mask"),
    "dice_loss_coef": Sets("model.weights.dice"),
    "bbox_loss_coef": Sets("model.weights.bbox"),
    "giou_loss_coef": Sets("model.weights.giou"),
    "dataset": Instead(_DATA),
    "train_split": Instead(_DATA),
    "img_size": Sets("data.image_size"),
    "max_img_size": Sets("data.max_image_size"),
    "start_epoch": Instead("a run goes on after the epoch of --resume's checkpoint", "0"),
    "run_epoch": Instead("stop the run when you like and go on with --resume", "500"),
    "num_workers": Sets("data.workers"),
}  # fmt: skip
"""Flags with one value."""

LISTS: dict[str, Effect] = {
    "lr_backbone_names": Instead("--set optimizer.rates={PART: RATE}", "img_backbone.0"),
    "lr_bert_names": Instead("--set optimizer.rates={PART: RATE}", "lang_backbone"),
    "lr_mask_branch_names": Instead("--set optimizer.factors={PART: FACTOR}",
                                    "bbox_attention mask_head"),
    "lr_drop_epochs": Joint("schedule"),
    "test_split": Joint("splits"),
}  # fmt: skip
"""Flags with several values."""

SWITCHES: dict[str, Effect] = {
    **dict.fromkeys((
        "with_box_refine", "two_stage", "pretrain_on_coco", "use_encoder_pooler",
        "use_softmax_ce", "remove_difficult",
    ), _UNUSED),
    "sgd": Instead("AdamW is the only optimiser; --set optimizer={...} has its numbers"),
    "no_decoder": Instead("--set model.decoder_layers=N, which is at least 1"),
    "freeze_backbone": _FREEZES,
    "freeze_bert": _FREEZES,
    "freeze_reftr": _FREEZES,
    "dilation": Sets("model.backbone.output_stride", "16"),
    "aux_loss": Sets("model.aux_loss", "true"),
    "cache_mode": Inert("images are read from the disk, with the same result"),
}  # fmt: skip
"""Flags without a value."""

_ROBERTA = (
    "model.text={kind: roberta, vocab_size: 50265, positions: 514, type_vocab_size: 1,"
    " norm_eps: 1e-5, pad_id: 1}"
)
_SCHEDULES = {"StepLR": "step", "MultiStepWarmupLR": "multistep", "CosineWarmupLR": "cosine"}
_LR_DROP, _WARM_UP = 40, 2.0
"""The published defaults of --lr_drop and --warm_up_epoch."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags of the three tables."""
    for table, more in (
        (VALUES, {}),
        (LISTS, {"nargs": "+"}),
        (SWITCHES, {"action": "store_true"}),
    ):
        for name, effect in table.items():
            parser.add_argument(f"--{name}", help=_help(effect), **more)  # type: ignore[arg-type]


def _help(effect: Effect) -> str:
    match effect:
        case Sets(key):
            return f"our {key}"
        case Inert(reason):
            return f"no effect: {reason}".replace("%", "%%")
        case Instead(remedy):
            return f"instead: {remedy}"
    return "as published"


def overrides_of(args: argparse.Namespace, config: RunConfig) -> list[str]:
    """The flags that were given, as `key=value` overrides of the configuration that they are for.

    Raises:
        ValueError: one that has no equal here, with the remedy.
    """
    found: list[str] = []
    joint: dict[str, None] = {}
    inert: list[tuple[str, str]] = []
    for name, effect in (VALUES | LISTS | SWITCHES).items():
        value = getattr(args, name)
        if value in (None, False):
            continue
        match effect:
            case Sets(key, fixed):
                found.append(f"{key}={fixed or value}")
            case Inert(reason):
                inert.append((f"--{name}", reason))
            case Instead(remedy, default):
                _require_default(name, value, remedy, default)
            case Joint(by):
                joint[by] = None
    if inert:
        logger.info("accepted without effect: %s", without_effect(inert))
    return [*found, *(text for by in joint for text in _JOINT[by](args, config))]


def _require_default(name: str, value: Any, remedy: str, default: str) -> None:
    text = "" if value is True else " ".join(value) if isinstance(value, list) else str(value)
    if not default or text != default:
        raise ValueError(f"{f'--{name} {text}'.strip()}: not here; {remedy}")


def _networks(args: argparse.Namespace, _: RunConfig) -> Iterator[str]:
    """The rate of both networks; at 0 the image network is frozen and the other stands still."""
    rate = max(0.0, float(args.lr_backbone))
    yield f"optimizer.rates={{img_backbone.0: {rate}, lang_backbone: {rate}}}"
    if not rate:
        yield "model.backbone.train_from=nothing"


def _masks(args: argparse.Namespace, config: RunConfig) -> Iterator[str]:
    # Without masks there is no branch that the rate could be of; the release ignores it.
    if config.model.masks:
        factor = args.lr_mask_branch_proj
        yield f"optimizer.factors={{bbox_attention: {factor}, mask_head: {factor}}}"


def _clipping(args: argparse.Namespace, _: RunConfig) -> Iterator[str]:
    norm = float(args.clip_max_norm)
    yield f"clip_norm={norm if norm > 0 else 'null'}"


def _ablation(args: argparse.Namespace, _: RunConfig) -> Iterator[str]:
    if args.ablation == "cem_loss":
        yield "model.weights.cem=1"
    elif args.ablation != "none":
        raise ValueError(f"--ablation {args.ablation}: not here; cem_loss and none are")


def _language(args: argparse.Namespace, config: RunConfig) -> Iterator[str]:
    name = args.bert_model
    yield f"data.text_encoder={name}"
    if "roberta" in name:
        yield _ROBERTA
    if not config.model.masks:  # a stage of masks has its words from the one of boxes
        yield f"model.init.text={name}"


def _schedule(args: argparse.Namespace, config: RunConfig) -> Iterator[str]:
    """The schedule of the recipe with what the flags change. As published each one reads only its
    own: --lr_drop is of StepLR, which has no warm-up."""
    ours = config.schedule
    if args.lr_schedule not in (None, *_SCHEDULES):
        raise ValueError(f"--lr_schedule {args.lr_schedule}: legal are {', '.join(_SCHEDULES)}")
    name = _SCHEDULES.get(args.lr_schedule, ours.name)
    same = name == ours.name
    if name == "step":
        drop = args.lr_drop or (ours.drop_epochs[0] if same else _LR_DROP)
        yield f"schedule={{name: step, drop_epochs: [{drop}]}}"
        return
    drops = args.lr_drop_epochs or (list(ours.drop_epochs) if same else [])
    if name == "multistep" and not drops:
        raise ValueError("--lr_schedule MultiStepWarmupLR: give its epochs with --lr_drop_epochs")
    warm = args.warm_up_epoch or (_WARM_UP if ours.name == "step" else ours.warmup_epochs)
    end = f", drop_epochs: [{', '.join(map(str, drops))}]" if name == "multistep" else ""
    yield f"schedule={{name: {name}, warmup_epochs: {warm}{end}}}"


def _splits(args: argparse.Namespace, _: RunConfig) -> tuple[str, ...]:
    """An evaluation takes them as --split."""
    if not args.eval:
        raise ValueError(
            f"--test_split {' '.join(args.test_split)}: training evaluates the splits of"
            " --set select.splits=[SPLIT], never test splits"
        )
    return ()


_JOINT: dict[str, Callable[[argparse.Namespace, RunConfig], Iterable[str]]] = {
    "networks": _networks,
    "masks": _masks,
    "clipping": _clipping,
    "ablation": _ablation,
    "language": _language,
    "schedule": _schedule,
    "splits": _splits,
}
