"""Train the detector that RefCLIP freezes (YOLOv3 with guided anchors) on COCO's instances.

    python train_detector.py --config configs/detector/coco.yaml --output_dir runs/detector
    torchrun --nproc_per_node=8 train_detector.py --config configs/detector/coco.yaml ...

The images that RefCOCO, RefCOCO+ and RefCOCOg evaluate on are left out, as the paper demands.
checkpoint_best.pth is what `model.init.detector` of configs/refclip takes.
"""

from groundwork.jobs import detector_training, run_script


def main(argv: list[str] | None = None) -> None:
    """Run with command line arguments `argv` (default: those of the process)."""
    detector_training.main(argv, description=__doc__ or "")


if __name__ == "__main__":
    run_script(main)
