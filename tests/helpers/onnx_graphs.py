"""Networks as ONNX graphs under onnxruntime, for tests."""

from pathlib import Path

import pytest
import torch

from groundwork.jobs.export import dynamic_axes, to_onnx
from groundwork.jobs.exported import GRAPHS
from groundwork.models.common.image_first import OWNER, ImageFirst
from groundwork.models.common.traced import trace

for _package in ("onnxscript", "onnxruntime"):
    pytest.importorskip(_package, reason=f"{_package}, of the extra 'export', is not installed")


class Square:
    """Questions of a system whose images have one size."""

    def image_rules(self) -> dict:
        return {"resize": "square"}


class Aspect:
    """Questions of a system whose images keep their aspect."""

    def image_rules(self) -> dict:
        return {"resize": "aspect"}


def onnx_answers(network: ImageFirst, batch: dict, folder: Path, *, free: bool = False) -> dict:
    """What the ONNX graph of a network gives for a batch, each text with the image of its row. It
    is traced with other images and texts, in other numbers; `free`: images of any size."""
    batch = {**batch, OWNER: torch.arange(len(batch["text_ids"]))}
    owner = torch.tensor([0, 1, 1, 0, 1])
    ids, images = batch["text_ids"][owner % len(batch["text_ids"])], batch["image"][:2]
    tokens = 7 if ids.shape[1] != 7 else 6
    ids = ids.repeat(1, 1 + tokens // ids.shape[1])[:, :tokens]
    example = {
        "image": torch.randn_like(images),
        "text_ids": ids,
        "text_mask": torch.ones_like(ids),
        OWNER: owner,
    }
    if "image_mask" in batch:
        example["image_mask"] = batch["image_mask"][:2]
    traced = trace(network.eval(), example, dynamic_axes(Aspect() if free else Square()))
    file = folder / "graph.onnx"
    to_onnx(traced).save(file)
    found = GRAPHS[".onnx"](file, "cpu").graph(*(batch[name] for name in traced.inputs))
    return dict(zip(traced.outputs, found, strict=True))
