"""The jobs of the scripts, from an installed package.

python -m groundwork train --config FILE ...          as train.py
python -m groundwork test --config FILE ...           as test.py
python -m groundwork pseudo_label --config FILE ...   as pseudo_label.py
python -m groundwork predict IMAGE "PHRASE" ...       as predict.py
python -m groundwork demo --checkpoint FILE ...       as demo.py
"""

import argparse

from groundwork import __version__


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` (default: those of the process)."""
    parser = argparse.ArgumentParser(
        prog="python -m groundwork",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("job", choices=("train", "test", "pseudo_label", "predict", "demo"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="of the job: --help lists them")
    args = parser.parse_args(argv)

    from groundwork.jobs import (  # here, as --version needs none
        demo,
        evaluate,
        label,
        predict,
        run_script,
        train,
    )

    jobs = {
        "train": train,
        "test": evaluate,
        "pseudo_label": label,
        "predict": predict,
        "demo": demo,
    }
    job = jobs[args.job]
    run_script(lambda: job.main(args.arguments, description=job.__doc__ or ""))


if __name__ == "__main__":
    main()
