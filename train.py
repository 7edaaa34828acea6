"""Train any system from one YAML file.

    python train.py --config configs/reftr/refcoco.yaml --output_dir runs/refcoco
    torchrun --nproc_per_node=4 train.py --config configs/reftr/flickr30k.yaml ...
    python train.py --config configs/reftr/refcoco_res.yaml --checkpoint BEST.pth ...

`--resume` goes on with the newest checkpoint in --output_dir, `--resume FILE` with that one, and
`--resume FILE --resume_model_only` starts anew from its weights, as `--checkpoint FILE` does.
"""

from groundwork.jobs import run_script
from groundwork.jobs import train as job


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` (default: those of the process)."""
    job.main(argv, description=__doc__ or "")


if __name__ == "__main__":
    run_script(main)
