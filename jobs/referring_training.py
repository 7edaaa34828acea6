"""Training box and mask systems: the job behind train.py."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from groundwork import engine, utils
from groundwork.dataset.loader import train_loader
from groundwork.dataset.sources import source_files
from groundwork.jobs import referring
from groundwork.jobs.folders import OUTPUT_HELP, run_folder
from groundwork.jobs.launch_flags import adopt_launch_flags
from groundwork.jobs.rooms import ROOMS, Room
from groundwork.jobs.tokenizers import Tokenizer, beside_weights, load_texts, save_words
from groundwork.models.common.checkpoint import LoadReport
from groundwork.optim import create_rated_optimizer
from groundwork.scheduler import stepwise_rate
from groundwork.settings import ReferringConfig, to_dict

logger = logging.getLogger("groundwork")
# What a resumed run may be told anew: where things lie, and how often it writes.
MAY_CHANGE = (
    "data.allow_outside_paths",
    "data.cache_dir",
    "data.evaluate_image_root",
    "data.image_root",
    "data.mask_root",
    "data.text_encoder",
    "data.workers",
    "eval_batch_size",
    "keep",
    "log_every",
    "save_every_steps",
)


def main(argv: Sequence[str] | None, *, description: str) -> None:
    """Train as the arguments say."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    referring.add_arguments(parser)
    parser.add_argument(
        "--checkpoint",
        "--load-from",
        "--finetune-from",
        help="weights to start from, in place of model.init",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="FILE",
        help="continue the run of FILE or --checkpoint, else the newest one in --output_dir",
    )
    parser.add_argument(
        "--resume_model_only",
        action="store_true",
        help="take only the weights of --resume's FILE and start a new run (RefTR's flag)",
    )
    parser.add_argument("--output_dir", "--work-dir", help=OUTPUT_HELP)
    args = parser.parse_args(argv)
    args.resume, args.checkpoint = origin(args)
    adopt_launch_flags(args)
    device = utils.init_distributed(args.device)
    utils.setup_logging()
    try:
        run(referring.load_settings(args), args, device)
    finally:
        utils.close_distributed()


def origin(args: argparse.Namespace) -> tuple[bool, str | None]:
    """Whether a run goes on, and the checkpoint that it goes on from or takes its weights of.

    Raises:
        ValueError: two files, or --resume_model_only without one.
    """
    if args.resume and args.checkpoint and args.resume != args.checkpoint:
        raise ValueError(
            f"--resume {args.resume} and --checkpoint {args.checkpoint}: a run has one origin; "
            "leave one of them out"
        )
    file = args.resume or args.checkpoint
    if args.resume_model_only and not file:
        raise ValueError("--resume_model_only takes the weights of --resume FILE; name the file")
    return args.resume is not None and not args.resume_model_only, file


def run(config: ReferringConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Build everything and call the engine once."""
    if not config.stages[-1].data.train:
        raise ValueError("data.train names no split; give its annotation files there")
    room = ROOMS[config.system]
    output_dir = Path(args.output_dir or run_folder(args.config))
    utils.seed_everything(config.seed)
    tokenizer = load_texts(config, Path(args.checkpoint) if args.checkpoint else None)
    model, criterion, postprocess = room.build(config.model, tokenizer)
    snapshots = engine.Snapshots(
        output_dir,
        to_dict(config),
        export=room.published_state,
        restore_model=lambda model, state: room.fill(model, state, LoadReport("resumed run")),
        keep=config.keep,
        may_change=MAY_CHANGE,
        beside=beside_weights(tokenizer),
    )
    resume = snapshots.starting_point(args.resume, args.checkpoint)
    if resume is None:
        start(room, model, config, args.checkpoint, tokenizer)
    model.to(device)
    optimizers = {"run": create_rated_optimizer(config.optimizer, model)}
    stages = build_stages(config, criterion, tokenizer)
    validation = build_validation(
        config, model, postprocess, tokenizer, device, output_dir=output_dir
    )
    if utils.is_main():
        save_words(tokenizer, output_dir)
    utils.write_manifest(
        output_dir, to_dict(config), seed=config.seed, files=annotation_files(config)
    )
    engine.fit(
        model,
        stages,
        optimizers,
        engine.Settings.of(config, unused_parameters=False),
        snapshots=snapshots,
        output_dir=output_dir,
        device=device,
        resume=resume,
        validation=validation,
    )


def start(
    room: Room,
    model: nn.Module,
    config: ReferringConfig,
    checkpoint: str | None,
    tokenizer: Tokenizer,
) -> None:
    """The weights of a new run: those of --checkpoint, or what model.init names."""
    if checkpoint:
        reports = [room.start_from(model, checkpoint)]
    else:
        reports = room.initialise(model, config.model, tokenizer)
    for report in reports:
        # Notes say what a reader of the results must know, such as where DETR saw test images.
        logger.log(logging.WARNING if report.notes else logging.INFO, "%s", report)


def annotation_files(config: ReferringConfig) -> list:
    """Every annotation file that the run reads, once."""
    data = config.data
    files = [
        file for part in config.stages for file in source_files(part.data.train, part.data.format)
    ]
    if config.select is not None:
        validation = referring.chosen_files(config, config.select.splits)
        files += source_files(validation, data.format)
    return list(dict.fromkeys(files))


def build_stages(
    config: ReferringConfig, criterion: nn.Module, tokenizer: Tokenizer
) -> list[engine.Stage]:
    """Data, criterion and schedule: the curriculum, then data.train."""
    text = referring.text_rules(config, tokenizer)
    collate = referring.collate(config, text, training=True)

    def rate(epoch: int, step: int, steps: int) -> float:
        # Stages may differ in steps per epoch; the schedule follows the share of the epochs.
        place = epoch * steps + step
        return stepwise_rate(config.schedule, config.optimizer, place, steps, config.total_epochs)

    stages = []
    for part in config.stages:
        loader = train_loader(
            referring.build_dataset(part, text, part.data.train, training=True),
            collate,
            config.batch_size,
            world_size=utils.world_size(),
            rank=utils.rank(),
            seed=config.seed,
            sampling=config.data.sampling,
            workers=config.data.workers,
        )
        stages.append(
            engine.Stage(
                name=config.system,
                criterion=criterion,
                loader=loader,
                optimizer_name="run",
                learning_rate=rate,
                epochs=part.epochs,
                steps=part.steps,
            )
        )
    return stages


def build_validation(
    config: ReferringConfig,
    model: nn.Module,
    postprocess: referring.Postprocess,
    tokenizer: Tokenizer,
    device: torch.device,
    *,
    output_dir: Path,
) -> engine.Validation | None:
    """The evaluation that chooses the best checkpoints; None if the configuration wants none."""
    select = config.select
    if select is None:
        return None
    files = referring.chosen_files(config, select.splits)
    loader = referring.evaluation_loader(config, tokenizer, files)
    about = referring.describe(config, "", select.splits)
    faults = engine.FaultLog(output_dir / "validation")

    def validate(epochs: int) -> dict[str, float] | None:
        if not select.due(epochs, config.total_epochs):
            return None
        predictions, remarks = referring.predict(config, model, postprocess, loader, device)
        faults.add(remarks.faults)
        faults.write()
        values = referring.metric_values(about, predictions)
        for metric in select.best.values():
            if metric not in values:
                raise ValueError(
                    f"select: {metric!r} is not measured on {', '.join(select.splits)}; there are "
                    f"{', '.join(values)}"
                )
            logger.info("after epoch %d: %s %.2f", epochs, metric, values[metric])
        return values

    return engine.Validation(run=validate, best=select.best)
