"""A system from outside: a box of the mean colour of the image and the length of the expression."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from typing_extensions import override

from groundwork.geometry import Grounding, cxcywh01_to_xyxy
from groundwork.models import SYSTEMS
from groundwork.models.common.checkpoint import load_strictly, read_published
from groundwork.models.common.system import ModelSettings, System, shared_parts


@dataclass(frozen=True, kw_only=True, slots=True)
class ColourConfig(ModelSettings):
    """width: of the hidden layer."""

    width: int = 8


class Colour(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 4))

    def forward(self, batch):
        length = batch["text_mask"].sum(1, keepdim=True) / 10
        return self.layers(torch.cat([batch["image"].mean((2, 3)), length], 1)).sigmoid()


class Distance(nn.Module):
    weights = {"loss_box": 1.0}

    def start_step(self, epoch, step, steps_per_epoch):
        """Nothing depends on where training stands."""

    def forward(self, boxes, batch):
        return {"loss_box": (boxes - torch.cat(batch["target_boxes"])).abs().mean()}


def to_groundings(boxes, batch):
    found = []
    for phrase, box, size in zip(batch["phrase"], boxes.tolist(), batch["size"], strict=True):
        x1, y1, x2, y2 = cxcywh01_to_xyxy([box], size)[0].tolist()
        found.append(
            Grounding(
                phrase=phrase,
                point=((x1 + x2) / 2, (y1 + y2) / 2),
                boxes=np.array([[x1, y1, x2, y2]]),
                scores=np.ones(1),
                mask=None,
                heatmap=None,
                size=size,
            )
        )
    return found


class ColourSystem(System):
    title = "Colour"
    settings = ColourConfig

    @override
    def build(self, settings, tokenizer, objectives=(), *, training=True):
        return shared_parts(Colour(settings.width), Distance(), to_groundings, objectives)

    @override
    def initialise(self, model, settings, tokenizer):
        return []

    def load(self, model, path):
        state, report = read_published(path)
        self.fill(model, state, report)
        return report

    start_from = load

    def fill(self, model, published, report):
        load_strictly(model, published, report=report)

    def published_state(self, model):
        return dict(model.state_dict())


SYSTEMS["colour"] = ColourSystem()
