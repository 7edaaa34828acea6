"""The installed package on the command line: python -m groundwork --version."""

import argparse

from groundwork import __version__


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` (default: those of the process)."""
    parser = argparse.ArgumentParser(prog="python -m groundwork", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args(argv)
    parser.print_help()


if __name__ == "__main__":
    main()
