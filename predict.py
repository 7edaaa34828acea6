"""Where is it? Phrases in your own images, by checkpoints of any system, side by side.

    python predict.py photo.jpg "the red circle" "the dog on the left"
    python predict.py photos "the red circle" --checkpoint a.pth b.pth --out found --write coco
    cat phrases.txt | python predict.py photo.jpg -

The image may be a file, a folder with its sub-folders, or a list of lines {"image": path, "phrase":
text} (or "phrases": [text, ...]). Without --checkpoint the model of the quick start is asked. OUT
receives overlays (heat map, point, box, mask, score), predictions.jsonl, and what --write names.
"""

from typing import Any

from groundwork.jobs import predict, run_script


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run with command line arguments `argv`; returns the folder and what was counted."""
    return predict.main(argv, description=__doc__ or "")


if __name__ == "__main__":
    run_script(main)
