"""An evaluation of one square on each of six images, as tests of rows and pages need it."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from groundwork.report import predictions, sheet
from groundwork.report.predictions import Prediction, Run
from tests.helpers.masks import boxes_to_mask

SIZE = (60, 80)
SQUARE, OTHER = (10.5, 10.0, 30.0, 30.0), (50.0, 30.0, 70.0, 50.0)


def prediction(number: int, **changes) -> Prediction:
    values = {
        "id": f"{number}",
        "image": f"{number // 2}.png",
        "split": "val" if number < 6 else "test",
        "phrase": f"the square № {number}\u2028é",
        "size": SIZE,
        "point": (20, 15) if number % 3 else (60, 40),
        "boxes": (SQUARE,),
        "score": 0.1 * number,
        "box": (10.0, 10.0, 29.0, 31.0),
        "proposal": OTHER if number % 4 else None,
        "proposal_index": number % 4 or -1,
        "paraphrase": "the box",
        "paraphrase_point": (21, 16),
        "correlation": 0.5,
        "objects": (SQUARE, OTHER),
        "heatmap": np.random.default_rng(number).random((4, 5)) * 1e-7,
    }
    return Prediction(**{**values, **changes})


def run_with_images(folder: Path) -> Run:
    """An evaluation of six images, which are drawn into a folder."""
    for number in range(6):
        image = Image.new("RGB", SIZE[::-1], (90, 120, 90))
        ImageDraw.Draw(image).rectangle(SQUARE, fill=(200, 40, 40))
        image.save(folder / f"{number}.png")
    return Run(
        system="albef",
        objective="amc",
        checkpoint="runs/a/checkpoint_01.pth",
        benchmark="embedded/refcoco+",
        derived=("box",),
        splits=("val", "test"),
        image_root=str(folder),
    )


def value(rows: list, metric: str, split: str, system: str = "albef") -> float | None:
    found = [
        row["value"]
        for row in rows
        if (row["metric"], row["split"], row["system"]) == (metric, split, system)
    ]
    assert len(found) == 1
    return found[0]


def masks_of(*boxes) -> list[str]:
    """Of each box a mask of an image's size, as it is saved."""
    return [predictions.runs_of(boxes_to_mask([box], SIZE)) for box in boxes]


def draw(path, run, items, *, hits=9, misses=9, **how):
    """An image sheet of some of the predictions."""
    return sheet.draw_sheet(path, run, sheet.drawn(run, items, hits=hits, misses=misses), **how)
