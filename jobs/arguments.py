"""The arguments that every job shares, and what is done with them."""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from groundwork import utils
from groundwork.jobs import plugins
from groundwork.jobs.launch_flags import add_launch_flags, adopt_launch_flags
from groundwork.settings import RunConfig, load_config
from groundwork.settings.kinds import keys_of, purpose_of
from groundwork.settings.load import Purpose, located
from groundwork.settings.roots import root_overrides

STRICT_HELP = "stop at the first record that cannot be used as annotated"


def parser(
    description: str, *, config: str | None = None, several: bool = False
) -> argparse.ArgumentParser:
    """A parser with the shared arguments.

    Args:
        config: the default configuration; without one --config must be given.
        several: --config takes any number of files, and is a list of them.
    """
    found = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    found.add_argument(
        "--config",
        nargs="+" if several else None,
        default=[config] if several else config,
        required=config is None,
        help="YAML file, such as configs/reftr/*.yaml; a released one is accepted",
    )
    found.add_argument("--text_encoder", help="tokeniser: hub name, folder, or vocab.txt")
    found.add_argument("--device", help="cuda, cuda:1, cpu; default: cuda if there is one")
    found.add_argument("--seed", type=int, help="overrides the config's seed")
    found.add_argument("--strict", action="store_true", help=STRICT_HELP)
    found.add_argument("--data", help="root of the data; trees of the repositories are known")
    found.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE", help="override config values"
    )
    found.add_argument(
        "--plugin",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="folders or modules that add objectives, systems or benchmarks of your own",
    )
    add_launch_flags(found)
    return found


@contextmanager
def processes(args: argparse.Namespace) -> Iterator[torch.device]:
    """The device of this process, in its group; plugins are loaded, the log is set up."""
    adopt_launch_flags(args)
    with utils.process_group(args.device, args.timeout) as device:
        # Knows by now which process speaks, and hears what the config reports.
        utils.setup_logging()
        with utils.losses_of_processes():
            plugins.load(args.plugin)
            yield device


def purpose(config: str | Path) -> Purpose:
    """What a configuration of either kind, our own or a released one, is to be read for."""
    return purpose_of(keys_of(located(config)))


def load(
    args: argparse.Namespace,
    *,
    config: str | Path | None = None,
    purpose: Purpose = "training",
    defaults: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The configuration that the shared arguments ask for; `config` in place of --config's."""
    overrides = [*root_overrides(args.data), *args.set]
    if args.text_encoder:
        overrides.append(f"data.text_encoder={args.text_encoder}")
    if args.seed is not None:
        overrides.append(f"seed={args.seed}")
    if args.strict:
        overrides.append("data.strict=true")
    return load_config(config or args.config, overrides, purpose=purpose, defaults=defaults)
