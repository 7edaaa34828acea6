"""Train ALBEF with SelfEQ on COCO captions.

    python Pretrain_coco.py --config configs/Pretrain_coco.yaml --checkpoint ALBEF.pth \\
        --output_dir ALBEF_COCO
    torchrun --nproc_per_node=8 Pretrain_coco.py --checkpoint ALBEF.pth --output_dir ALBEF_COCO
"""

from groundwork.jobs import run_script, train


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` (default: those of the process)."""
    train.main(
        argv,
        description=__doc__ or "",
        config="configs/Pretrain_coco.yaml",
        defaults={"data.format": "coco"},
    )


if __name__ == "__main__":
    run_script(main)
