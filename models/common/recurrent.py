"""A recurrent layer that stays one operation where a network is traced.

Shapes: B sentences of L tokens, I input width, D width.
"""

import torch
from torch import Tensor, nn
from torch.library import custom_op


class GRU(nn.GRU):
    """`nn.GRU` of one layer, batch first, with its parameters and their names.

    torch.export writes a step for every token into a graph, which then is for texts of one length.
    """

    def __init__(self, inputs: int, width: int):
        super().__init__(inputs, width, batch_first=True)

    def states(self, tokens: Tensor) -> Tensor:
        """(B, L, I) -> the state after each token, (B, L, D)."""
        if torch.compiler.is_exporting():
            weights = (self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0)
            return torch.ops.groundwork.gru(tokens, *weights)
        return self(tokens)[0]


@custom_op("groundwork::gru", mutates_args=())
def gru(tokens: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:
    """`GRU.states` of a layer with these parameters, from a state of zeros; (3 D, ...) in torch's
    order of gates: reset, update, new."""
    start = tokens.new_zeros(1, tokens.shape[0], w_hh.shape[1])
    weights = (w_ih, w_hh, b_ih, b_hh)
    return torch.gru(tokens, start, weights, True, 1, 0.0, False, False, True)[0]


@gru.register_fake
def _(tokens: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor) -> Tensor:  # noqa: ARG001
    return tokens.new_empty(*tokens.shape[:2], w_hh.shape[1])
