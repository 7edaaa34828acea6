"""Train ALBEF with AMC and/or SelfEQ on Visual Genome.

    python Pretrain_vg.py --config configs/Pretrain_vg.yaml --checkpoint ALBEF.pth \\
        --output_dir ALBEF_VG
    torchrun --nproc_per_node=8 Pretrain_vg.py --config configs/Pretrain_vg_amc.yaml ...
    python -m torch.distributed.launch --nproc_per_node=8 --use_env Pretrain_vg.py ...
"""

from groundwork.jobs import run_script, train


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` (default: those of the process)."""
    train.main(
        argv,
        description=__doc__ or "",
        config="configs/Pretrain_vg.yaml",
        defaults={"data.format": "vg"},
    )


if __name__ == "__main__":
    run_script(main)
