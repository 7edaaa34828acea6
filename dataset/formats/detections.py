"""Region proposals of a detector: dets.json, {image_id: [[x, y, w, h, ...], ...]}.

Read, too, is MAttNet's own form: [{det_id, image_id, box: [x, y, w, h], ...}, ...].
"""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from groundwork.dataset.formats import entries
from groundwork.geometry import xywh_to_xyxy, xyxy_to_xywh


def read(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """{image_id: (n, 4) float64 xyxy pixels}, in the file's order; numbers after the first four are
    not boxes.

    The image id is that of `Record.record_id` for RefCOCO+.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"det_file {path} does not exist: give its place, let `python -m tools.make_proposals`"
            " write it, or go without the proposal metric by --set data.det_file=null"
        )
    detections = entries.load_json(path, "det_file")
    if isinstance(detections, list):
        detections = _by_image(detections, os.fspath(path))
    if not isinstance(detections, dict):
        raise ValueError(
            f"{path}: expected {{image_id: [[x, y, w, h], ...]}} or MAttNet's list of {{image_id,"
            f" box}}, got a {type(detections).__name__}"
        )
    proposals = {}
    for image_id, rows in detections.items():
        source = f"{os.fspath(path)}[{image_id}]"
        if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
            raise ValueError(f"{source}: proposals must be a list of [x, y, w, h]")
        boxes = entries.boxes([row[:4] for row in rows], "proposals", source)
        array = np.asarray(boxes, dtype=np.float64).reshape(-1, 4)
        # One of negative size is never chosen, like one without an area.
        array[(array[:, 2:] < 0).any(axis=1), 2:] = 0
        proposals[image_id] = xywh_to_xyxy(array)
    return proposals


def _by_image(rows: list[Any], source: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for index, row in enumerate(rows):
        image_id = str(entries.number(row, "image_id", f"{source}[{index}]"))
        found.setdefault(image_id, []).append(entries.need(row, "box", f"{source}[{index}]"))
    return found


def write(proposals: Mapping[str, np.ndarray], path: str | os.PathLike[str]) -> int:
    """Write {image_id: (n, 4 or more) xyxy pixels and further numbers, such as a score}.

    Returns:
        How many proposals were written.
    """
    rows = {
        image_id: np.hstack([xyxy_to_xywh(boxes[:, :4]), boxes[:, 4:]]).round(4).tolist()
        for image_id, boxes in proposals.items()
    }
    entries.save_json(path, rows)
    return sum(map(len, rows.values()))
