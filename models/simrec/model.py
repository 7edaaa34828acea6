"""SimREC (Luo et al., 2022): a compact network from an image and a sentence to one box.

Shapes: B images of side S with one sentence of L words each; D width; h x w cells, one per 32
pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from groundwork import utils
from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.timm_backbone import TimmBackbone
