"""Training ALBEF: the job behind Pretrain_vg.py and Pretrain_coco.py."""

from __future__ import annotations

import argparse
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

from groundwork import engine, utils
from groundwork.dataset.formats import read_table
from groundwork.dataset.image_text.dataset import TrainDataset
from groundwork.dataset.image_text.transforms import CropTransform, TrainTransform
from groundwork.dataset.loader import make_train_loader
from groundwork.dataset.needs import BOX, PARAPHRASE
from groundwork.dataset.record import Phrase, RecordTable
from groundwork.dataset.text import PARAPHRASE_RULES, load_tokenizer
from groundwork.jobs import STRICT_HELP, check_vocabulary
from groundwork.jobs.folders import OUTPUT_HELP, run_folder
from groundwork.jobs.launch_flags import add_launch_flags, adopt_launch_flags, truth
from groundwork.jobs.released_files import names_of
from groundwork.models.albef import checkpoint
from groundwork.models.albef.build import build
from groundwork.models.common.checkpoint import LoadReport
from groundwork.optim import create_optimizer
from groundwork.scheduler import learning_rate
from groundwork.settings import load_config, to_dict
from groundwork.settings.roots import root_overrides
from groundwork.settings.schema import PretrainConfig, StageConfig

logger = logging.getLogger("groundwork")
# What a resumed run may be told anew: where things lie, and how often it writes.
MAY_CHANGE = (
    "data.allow_outside_paths",
    "data.cache_dir",
    "data.image_root",
    "data.text_encoder",
    "data.workers",
    "keep",
    "log_every",
    "save_every_steps",
)


def parse_args(argv: Sequence[str] | None, *, description: str, config: str) -> argparse.Namespace:
    """The released scripts' arguments, and `--set`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", default=config, help="YAML file; a released one is accepted")
    parser.add_argument("--checkpoint", help="weights to start from: ALBEF, AMC, SelfEQ or our own")
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=truth,
        help="continue the run of --checkpoint if given, else the newest one in --output_dir; as"
        " released also True or False",
    )
    parser.add_argument("--output_dir", help=OUTPUT_HELP)
    parser.add_argument("--text_encoder", help="tokeniser: hub name, folder, or vocab.txt")
    parser.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    parser.add_argument("--seed", type=int, help="overrides the config's seed")
    parser.add_argument("--strict", action="store_true", help=STRICT_HELP)
    parser.add_argument(
        "--init",
        nargs=2,
        metavar=("DEIT", "BERT"),
        help="without --checkpoint: start from these encoders (timm and hub names, or local files)",
    )
    parser.add_argument("--data", help="root of the data; trees of the repositories are known")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config values"
    )
    add_launch_flags(parser)
    args = parser.parse_args(argv)
    if args.init and args.checkpoint:
        parser.error("--init and --checkpoint both say what to start from; give one of them")
    return args


def main(argv: Sequence[str] | None, *, description: str, config: str, data_format: str) -> None:
    """Train as the arguments say.

    Args:
        description: of the script. config: its default configuration.
        data_format: "vg" or "coco", for configurations that do not name it.
    """
    args = parse_args(argv, description=description, config=config)
    overrides = [*root_overrides(args.data), *args.set]
    if args.text_encoder:
        overrides.append(f"data.text_encoder={args.text_encoder}")
    if args.seed is not None:
        overrides.append(f"seed={args.seed}")
    if args.strict:
        overrides.append("data.strict=true")
    adopt_launch_flags(args)
    device = utils.init_distributed(args.device)
    utils.setup_logging()  # knows by now which process speaks, and hears what the config reports
    try:
        settings = load_config(
            args.config, "pretrain", overrides, defaults={"data.format": data_format}
        )
        run(settings, args, device)
    finally:
        utils.close_distributed()


def run(config: PretrainConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Build everything and call the engine once."""
    output_dir = Path(args.output_dir or run_folder(args.config))
    utils.seed_everything(config.seed)
    tokenizer = load_tokenizer(config.data.text_encoder)
    check_vocabulary(config, tokenizer)
    model, criteria = build(config, tokenizer)
    snapshots = engine.Snapshots(
        output_dir,
        to_dict(config),
        export=checkpoint.published_state,
        restore_model=lambda model, state: checkpoint.fill(model, state, LoadReport("resumed run")),
        keep=config.keep,
        may_change=MAY_CHANGE,
        beside={"tokens": checkpoint.TOKENS},
    )
    resume = snapshots.starting_point(args.resume, args.checkpoint)
    if resume is not None:
        checkpoint.require_tokens(resume)
    if args.checkpoint and not args.resume:
        logger.info("%s", checkpoint.load(model, args.checkpoint))
    if args.init:
        logger.info("%s", checkpoint.initialise_encoders(model, *args.init))
    model.to(device)
    optimizers = create_optimizers(config, model)
    stages = build_stages(config, criteria, tokenizer)
    utils.write_manifest(
        output_dir,
        to_dict(config),
        seed=config.seed,
        files=annotation_files(config),
        tokens=checkpoint.TOKENS,
    )
    engine.fit(
        model,
        stages,
        optimizers,
        # Which parameters a batch reaches depends on its regions, paraphrases, masked words.
        engine.Settings.of(config, unused_parameters=True),
        snapshots=snapshots,
        output_dir=output_dir,
        device=device,
        resume=resume,
    )


def annotation_files(config: PretrainConfig) -> list[str]:
    """Every annotation file that the stages read, once."""
    return list(
        dict.fromkeys(file for stage in config.stages for file in stage_files(config, stage))
    )


def stage_files(config: PretrainConfig, stage: StageConfig) -> tuple[str, ...]:
    """The annotation files of one stage."""
    data = config.data
    return stage.train_file or (data.relation_file if stage.data == "relation" else data.train_file)


def create_optimizers(config: PretrainConfig, model: nn.Module) -> dict[str, torch.optim.Optimizer]:
    """The run's optimiser, and one for each stage that asks for its own."""
    optimizers: dict[str, torch.optim.Optimizer] = {}
    for index, stage in enumerate(config.stages):
        name = optimizer_name(index, stage)
        if name not in optimizers:
            optimizers[name] = create_optimizer(stage.optimizer or config.optimizer, model)
    return optimizers


def optimizer_name(index: int, stage: StageConfig) -> str:
    """Stages without an optimiser of their own share the run's, with its state."""
    return "run" if stage.optimizer is None else f"stage_{index}"


def build_stages(
    config: PretrainConfig, criteria: Sequence[nn.Module], tokenizer: PreTrainedTokenizerBase
) -> list[engine.Stage]:
    """Data, criterion and schedule of every stage."""
    stages, first_epoch = [], 0
    for index, (stage, criterion) in enumerate(zip(config.stages, criteria, strict=True)):
        stages.append(
            engine.Stage(
                name="+".join(stage.objective),
                criterion=criterion,
                loader=build_loader(config, stage, tokenizer),
                optimizer_name=optimizer_name(index, stage),
                learning_rate=stage_rate(config, stage, first_epoch),
                epochs=stage.epochs,
                steps=stage.steps,
                names=names_of(config, stage),
            )
        )
        first_epoch += stage.epochs
    return stages


def stage_rate(
    config: PretrainConfig, stage: StageConfig, first_epoch: int
) -> Callable[[int, int, int], float]:
    """(epoch, step, steps per epoch) -> learning rate of a stage that begins at `first_epoch`."""
    schedule, optimizer = stage.schedule or config.schedule, stage.optimizer or config.optimizer
    # A stage with a schedule of its own counts its epochs from its own beginning.
    start = 0 if stage.schedule is None else first_epoch

    def rate(epoch: int, step: int, steps: int) -> float:
        return learning_rate(schedule, optimizer, epoch - start, step, steps)

    return rate


def build_loader(
    config: PretrainConfig, stage: StageConfig, tokenizer: PreTrainedTokenizerBase
) -> DataLoader:
    """The stage's training loader for this process."""
    data, files = config.data, stage_files(config, stage)
    records = read_table(files, data.format, data.cache_dir)
    require_data(records, config, stage)
    dataset = TrainDataset(
        records,
        data.image_root,
        build_transform(config, stage),
        data.max_words,
        config.seed,
        flip_swaps_words=data.flip_swaps_words,
        all_boxes=data.all_boxes,
        paraphrase_rule=data.paraphrase_rule,
        tolerate_corrupt=data.tolerate_corrupt,
        allow_outside_paths=data.allow_outside_paths,
        opener=data.opener,
        strict=data.strict,
    )
    return make_train_loader(
        dataset,
        tokenizer,
        config.batch_size,
        data.max_tokens,
        world_size=utils.world_size(),
        rank=utils.rank(),
        seed=config.seed,
        sampling=data.sampling,
        workers=data.workers,
    )


def require_data(records: RecordTable, config: PretrainConfig, stage: StageConfig) -> None:
    """Say how many phrases lack what the objectives of a stage learn from.

    Raises:
        ValueError: all do.
    """
    files = ", ".join(stage_files(config, stage))
    notes = []
    if stage.uses_regions:
        having, phrases = records.phrases_with("boxes")
        notes.append(BOX.note(phrases - having, phrases, files))
    if "selfeq" in stage.objective:
        has = paraphrasable(config)
        found = Counter(has(phrase) for record in records for phrase in record.phrases)
        notes.append(PARAPHRASE.note(found[False], found.total(), files))
    for note in filter(None, notes):
        if utils.is_main():
            logger.warning("%s", note)


def paraphrasable(config: PretrainConfig) -> Callable[[Phrase], bool]:
    """Does a phrase have a paraphrase by the configured rule?"""
    rule, words = PARAPHRASE_RULES[config.data.paraphrase_rule], config.data.max_words
    return lambda phrase: any(rule(phrase, word, words) is not None for word in phrase.synonyms)


def build_transform(config: PretrainConfig, stage: StageConfig) -> TrainTransform | CropTransform:
    """What the stage does with its images."""
    data = config.data
    augment = data.augment if stage.augment is None else stage.augment
    if data.crop == "random":
        return CropTransform(
            config.model.image_size,
            data.mask_size,
            augment=augment,
            operations=data.randaugment_rule,
        )
    return TrainTransform(
        config.model.image_size,
        data.mask_size,
        augment=augment,
        colour_jitter=data.colour_jitter,
        jitter_rule=data.jitter_rule,
        regions=stage.uses_regions,
    )
