"""Training any system: the job behind train.py, Pretrain_vg.py and Pretrain_coco.py."""

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from groundwork import engine, utils
from groundwork.dataset.sources import source_files
from groundwork.engine.curves import TRACKERS, require_installed
from groundwork.files.manifest import reading, write_manifest
from groundwork.jobs import arguments
from groundwork.jobs.folders import OUTPUT_HELP, require_writable, run_folder
from groundwork.jobs.forms import FORMS
from groundwork.jobs.launch_flags import truth
from groundwork.jobs.released_files import names_of
from groundwork.jobs.tokenizers import Tokenizer, beside_weights, load_texts, save_words
from groundwork.jobs.validation import build_validation
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import LoadReport
from groundwork.models.common.system import ImageTextSettings, Parts, System
from groundwork.optim import create_optimizer
from groundwork.scheduler import learning_rate
from groundwork.settings import RunConfig, StageConfig, to_dict

logger = logging.getLogger("groundwork")
AUTO = "auto"
"""Of --resume: the same command begins a run and goes on with it."""
# What a resumed run may be told anew: where things lie, and how often it writes.
MAY_CHANGE = (
    "compile",
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
    "sharded",
)


def main(
    argv: Sequence[str] | None,
    *,
    description: str = "",
    config: str | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> None:
    """Train as the arguments say.

    Args:
        description: of the script. config: its default configuration, if it has one.
        defaults: dotted keys that its configurations may leave open.
    """
    args = parse_args(argv, description=description, config=config)
    with arguments.processes(args) as device:
        run(arguments.load(args, defaults=defaults), args, device)


def parse_args(
    argv: Sequence[str] | None, *, description: str, config: str | None = None
) -> argparse.Namespace:
    """What the command says; `resume` is whether a run goes on (None: if there is one),
    `checkpoint` from which file or with the weights of which."""
    parser = arguments.parser(description, config=config)
    parser.add_argument(
        "--checkpoint",
        "--load-from",
        "--finetune-from",
        help="weights to start from, published or our own, in place of model.init",
    )
    parser.add_argument(
        "--resume",
        nargs="?",
        const="True",
        metavar="FILE",
        help="continue the run of FILE or --checkpoint, else the newest one in --output_dir; auto:"
        " that one if it is there, else begin; as released also True or False",
    )
    parser.add_argument(
        "--resume_model_only",
        action="store_true",
        help="take only the weights of --resume's FILE and start a new run (RefTR's flag)",
    )
    parser.add_argument(
        "--init",
        nargs=2,
        metavar=("DEIT", "BERT"),
        help="ALBEF: model.init.vision and model.init.text, encoders to start from without"
        " --checkpoint (timm and hub names, or local files)",
    )
    parser.add_argument("--output_dir", "--work-dir", help=OUTPUT_HELP)
    parser.add_argument(
        "--track", nargs="+", choices=sorted(TRACKERS), default=[], help="tell these, too"
    )
    args = parser.parse_args(argv)
    if args.init and args.checkpoint:
        parser.error("--init and --checkpoint both say what to start from; give one of them")
    if args.init:
        args.set += [f"model.init.vision={args.init[0]}", f"model.init.text={args.init[1]}"]
    args.resume, args.checkpoint = origin(args)
    return args


def origin(args: argparse.Namespace) -> tuple[bool | None, str | None]:
    """Whether a run goes on (None: if there is one), and the checkpoint that it goes on from or
    takes its weights of.

    Raises:
        ValueError: two files, or --resume_model_only without one.
    """
    if args.resume == AUTO:
        return None, args.checkpoint
    try:
        resume, file = truth("False" if args.resume is None else args.resume), args.checkpoint
    except argparse.ArgumentTypeError:
        resume, file = True, args.resume
        if args.checkpoint not in (None, file):
            raise ValueError(
                f"--resume {file} and --checkpoint {args.checkpoint}: a run has one origin; "
                "leave one of them out"
            ) from None
    if args.resume_model_only and not file:
        raise ValueError("--resume_model_only takes the weights of --resume FILE; name the file")
    return resume and not args.resume_model_only, file


def run(config: RunConfig, args: argparse.Namespace, device: torch.device) -> None:
    """Build everything and call the engine once."""
    require_training(config, args.config)
    require_installed(args.track)
    system, output_dir = SYSTEMS[config.system], Path(args.output_dir or run_folder(args.config))
    require_writable(output_dir)
    utils.seed_everything(config.seed)
    # Nothing is written, and no data are read, before it is clear that the run may begin here.
    snapshots = engine.Snapshots(
        output_dir,
        to_dict(config),
        export=system.published_state,
        restore_model=lambda model, state: system.fill(model, state, LoadReport("resumed run")),
        keep=config.keep,
        may_change=MAY_CHANGE,
        beside=system.beside,
    )
    resume = snapshots.starting_point(args.resume, args.checkpoint)
    tokenizer = load_texts(config, Path(args.checkpoint) if args.checkpoint else None)
    snapshots.beside |= beside_weights(tokenizer)
    # The tokeniser comes before the network, whose table of words has its size.
    parts = system.build(
        config.model, tokenizer, [stage.objective for stage in config.stages], training=True
    )
    blocks = system.blocks(parts.model)
    if config.sharded and not blocks:
        raise ValueError(f"sharded: {system.title} cannot be; ALVG can. Set sharded: false")
    if resume is None:
        start(system, parts.model, config, args.checkpoint, tokenizer)
    else:
        system.check_resumed(resume)
    parts.model.to(device)
    if config.compile:
        compile_parts(system, parts.model, device)
    with reading(annotation_files(config)) as data:
        stages = build_stages(config, parts, tokenizer)
        validation = build_validation(
            config, parts, tokenizer, device, output_dir=output_dir, source=args.config
        )
    optimizers = create_optimizers(config, parts.model)
    # The first files of the run: data, weights and settings have been read and fit together.
    with snapshots.alone():
        if utils.is_main():
            save_words(tokenizer, output_dir)
        write_manifest(output_dir, to_dict(config), seed=config.seed, data=data, **system.beside)
        engine.fit(
            parts.model,
            stages,
            optimizers,
            engine.Settings.of(config, unused_parameters=parts.unused_parameters),
            snapshots=snapshots,
            output_dir=output_dir,
            device=device,
            resume=resume,
            validation=validation,
            trackers=args.track,
            blocks=blocks,
        )


def compile_parts(system: System[Any, Any], model: nn.Module, device: torch.device) -> None:
    """As `compile: true` says.

    Raises:
        ValueError: there is nothing to compile, or nothing to compile it with.
    """
    engine.require_compiler(device)
    parts = system.compilable(model)
    if not parts:
        raise ValueError(f"compile: nothing of this {system.title} can be; set compile: false")
    engine.compile_parts(parts)


def require_training(config: RunConfig, source: str) -> None:
    """Raises ValueError if the configuration of the file `source` is not that of a training."""
    if not config.stages:
        objective = "objective: amc, " if isinstance(config.model, ImageTextSettings) else ""
        raise ValueError(f"{source}: stages is empty; add one such as {{{objective}epochs: 30}}")
    # Pseudo-labels take the place of what the last stage names.
    read = config.stages[:-1] if config.data.labels else config.stages
    if not config.data.train and any(stage.train is None for stage in read):
        raise ValueError(
            f"{source}: data.train names no split; give its annotation files there, such as"
            " data.train.train=FILE"
        )


def start(
    system: System[Any, Any],
    model: nn.Module,
    config: RunConfig,
    checkpoint: str | None,
    tokenizer: Tokenizer,
) -> None:
    """The weights of a new run: those of --checkpoint, or what model.init names."""
    if checkpoint:
        reports = [system.start_from(model, checkpoint)]
    else:
        reports = system.initialise(model, config.model, tokenizer)
    for report in reports:
        # Notes say what a reader of the results must know, such as where DETR saw test images.
        logger.log(logging.WARNING if report.notes else logging.INFO, "%s", report)


def annotation_files(config: RunConfig) -> list[str | Path]:
    """Every annotation file that the run reads, once."""
    files = [
        file
        for alone in config.of_stages
        for file in source_files(alone.data.train, alone.data.format)
    ]
    if config.select is not None:
        form = FORMS[SYSTEMS[config.system].samples]
        files += form.evaluation_files(config, config.select.splits)
    return list(dict.fromkeys(files))


def create_optimizers(config: RunConfig, model: nn.Module) -> dict[str, torch.optim.Optimizer]:
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


def build_stages(config: RunConfig, parts: Parts, tokenizer: Tokenizer) -> list[engine.Stage]:
    """Data, criterion and schedule of every stage."""
    form = FORMS[SYSTEMS[config.system].samples]
    stages, first_epoch = [], 0
    for index, (alone, criterion) in enumerate(zip(config.of_stages, parts.criteria, strict=True)):
        stage = config.stages[index]
        stages.append(
            engine.Stage(
                name="+".join(stage.objective) or config.system,
                criterion=criterion,
                loader=form.train_loader(alone, tokenizer),
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
    config: RunConfig, stage: StageConfig, first_epoch: int
) -> Callable[[int, int, int], float]:
    """(epoch, step, steps per epoch) -> learning rate of a stage that begins at `first_epoch`."""
    schedule, optimizer = stage.schedule or config.schedule, stage.optimizer or config.optimizer
    # A stage with a schedule of its own counts its epochs from its own beginning.
    begin = 0 if stage.schedule is None else first_epoch
    return lambda epoch, step, steps: learning_rate(schedule, optimizer, epoch - begin, step, steps)
