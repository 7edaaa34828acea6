"""The flags by which the released scripts were told of their processes.

`python -m torch.distributed.launch` without `--use_env` adds `--local_rank` (since PyTorch 2.0
`--local-rank`) to every command. The launcher's environment says the rest, here as there.
"""

import argparse
import os
from urllib.parse import urlsplit

_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0")


def truth(text: str) -> bool:
    """`True` and `False` as the released commands write them.

    Raises:
        argparse.ArgumentTypeError: anything else.
    """
    if text.lower() in (*_TRUE, *_FALSE):
        return text.lower() in _TRUE
    raise argparse.ArgumentTypeError(f"{text!r} is neither True nor False")


def add_launch_flags(parser: argparse.ArgumentParser) -> None:
    """Adds them, in a group of their own."""
    group = parser.add_argument_group(
        "processes", "flags of the released scripts; a launcher's environment says the same"
    )
    group.add_argument("--local_rank", "--local-rank", type=int, help="which GPU of this machine")
    group.add_argument("--dist_url", default="env://", help="env://, or tcp://HOST:PORT to meet at")
    group.add_argument("--world_size", type=int, help="as released: the launcher's number counts")
    group.add_argument(
        "--timeout",
        type=float,
        metavar="SECONDS",
        help="that a process waits for another one before the job ends (nccl 600, gloo 1800)",
    )
    group.add_argument(
        "--distributed", type=truth, help="as released: there is a group if a launcher made one"
    )


def adopt_launch_flags(args: argparse.Namespace) -> None:
    """Gives what the flags say the names in the environment that `utils.process_group` reads;
    what the environment says already stays.

    Raises:
        ValueError: `--dist_url` is something else than `env://` or `tcp://HOST:PORT`.
    """
    if args.local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    if args.dist_url == "env://":
        return
    where = urlsplit(args.dist_url)
    if where.scheme != "tcp" or not where.hostname or not where.port:
        raise ValueError(f"--dist_url {args.dist_url}: use env:// or tcp://HOST:PORT")
    os.environ.setdefault("MASTER_ADDR", where.hostname)
    os.environ.setdefault("MASTER_PORT", str(where.port))
