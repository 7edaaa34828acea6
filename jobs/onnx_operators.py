"""Operators that torch's exporter does not translate to ONNX."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torchvision  # noqa: F401 (registers its operators)
from onnxscript import opset20

from groundwork.models.common import recurrent  # noqa: F401 (registers its operator)

if TYPE_CHECKING:
    Value = Any
else:
    # What torch's exporter reads of a signature; to a type checker it has no operations.
    from onnxscript import FLOAT as Value

op: Any = opset20  # whose types know no constants


def deform_conv2d(  # noqa: PLR0913, PLR0917 (the operator has them)
    image: Value,
    weight: Value,
    offset: Value,
    mask: Value,
    bias: Value,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    groups: int,
    offset_groups: int,
    use_mask: bool,
) -> Value:
    """torchvision's deformable convolution, whose arguments these are."""
    return op.DeformConv(
        image,
        weight,
        offset,
        bias,
        mask if use_mask else None,
        strides=[stride_h, stride_w],
        pads=[pad_h, pad_w, pad_h, pad_w],
        dilations=[dilation_h, dilation_w],
        group=groups,
        offset_group=offset_groups,
    )


def gru(tokens: Value, w_ih: Value, w_hh: Value, b_ih: Value, b_hh: Value) -> Value:
    """`models.common.recurrent.gru`."""
    w_in, w_state, b_ih, b_hh = (_update_first(one) for one in (w_ih, w_hh, b_ih, b_hh))
    states, _ = op.GRU(
        op.Transpose(tokens, perm=[1, 0, 2]),
        op.Unsqueeze(w_in, [0]),
        op.Unsqueeze(w_state, [0]),
        op.Unsqueeze(op.Concat(b_ih, b_hh, axis=0), [0]),
        hidden_size=w_hh.shape[1],
        linear_before_reset=1,
    )
    # The axis of directions goes.
    return op.Transpose(op.Squeeze(states, [1]), perm=[1, 0, 2])


def _update_first(gates: Value) -> Value:
    """(3 D, ...): reset, update, new -> update, reset, new, the order of ONNX."""
    reset, update, candidate = op.Split(gates, num_outputs=3, axis=0)
    return op.Concat(update, reset, candidate, axis=0)


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.torchvision.deform_conv2d.default: deform_conv2d,
    torch.ops.groundwork.gru.default: gru,
}
"""Operators of torch -> what makes ONNX's of them."""
