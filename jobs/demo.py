"""The job behind demo.py: what the command says, and the page that it serves."""

import argparse
from collections.abc import Sequence
from dataclasses import fields

from groundwork import utils
from groundwork.jobs import demo_page, plugins
from groundwork.jobs.demo_desk import Desk, Limits
from groundwork.jobs.systems import UNASKED, add_system_arguments, checkpoints_of, load_systems

PORT = 7860
_MEANING = {
    "max_upload_mb": "megabytes of an uploaded file",
    "max_megapixels": "million pixels of an image",
    "max_phrases": "phrases of a question",
    "max_letters": "letters of a phrase",
    "max_seconds": "seconds that a question may take, or an upload",
    "at_once": "questions that are answered at a time",
    "queue": "questions that may wait",
}


def main(argv: Sequence[str] | None, *, description: str = "") -> None:
    """Serve the page until it is interrupted.

    Raises:
        ValueError: Gradio is not installed, a limit is not above 0, or the port is taken.
    """
    args = parse_args(argv, description)
    limits = Limits(**{field.name: getattr(args, field.name) for field in fields(Limits)})
    demo_page.require_gradio()
    utils.setup_logging()
    utils.share_heap()
    plugins.load(args.plugin)
    systems = load_systems(checkpoints_of(args.checkpoint), args)
    desk = Desk(systems, limits, note="" if args.checkpoint else UNASKED)
    demo_page.serve(desk, args.host, args.port)


def parse_args(argv: Sequence[str] | None, description: str) -> argparse.Namespace:
    """What the command says."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_system_arguments(parser)
    parser.add_argument(
        "--host",
        default=demo_page.LOOPBACK,
        help=f"address that others reach the page by ({demo_page.LOOPBACK})",
    )
    parser.add_argument("--port", type=int, default=PORT, help=f"({PORT}); 0 takes any free one")
    for field in fields(Limits):
        parser.add_argument(
            f"--{field.name.replace('_', '-')}",
            type=type(field.default),
            default=field.default,
            help=f"{_MEANING[field.name]} ({field.default:g})",
        )
    return parser.parse_args(argv)
