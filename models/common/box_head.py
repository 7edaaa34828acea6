"""The box head of DETR, which RefTR and ALVG have too."""

from torch import Tensor, nn

from groundwork.models.common.torch_types import ModuleListOf


class BoxHead(nn.Module):
    """Three linear layers to the logits of a box."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = ModuleListOf(nn.Linear(width, outputs) for outputs in (width, width, 4))

    def forward(self, states: Tensor) -> Tensor:
        """States (..., D) -> logits (..., 4) of cxcywh."""
        for layer in self.layers[:-1]:
            states = layer(states).relu()
        return self.layers[-1](states)
