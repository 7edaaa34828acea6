"""RefTR's image network: torchvision's ResNet without its classifier, and the sine position code.

Shapes: B images, (H, W) the padded canvas, (h, w) a feature map, C channels.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.ops import FrozenBatchNorm2d

from groundwork.models.common.normalised import normalised
from groundwork.models.common.positions import cell_positions
from groundwork.models.common.timm_backbone import JoinedMaps, TimmBackbone
