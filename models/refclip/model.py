"""RefCLIP (Jin et al., CVPR 2023): which cell of a frozen detector's map does a sentence mean?

What the paper calls an anchor is a cell of the coarsest map, which owns several boxes.

Shapes: B images with one sentence of L words each; N cells on the map, k of them candidates; A
boxes per cell; D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from groundwork.models.common.darknet import MultiScaleFusion
from groundwork.models.common.frozen_cache import FrozenCache
