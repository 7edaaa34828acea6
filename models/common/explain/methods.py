"""Heat maps from the attentions of a network in which text looks at an image.

Legend: n pairs of a text and an image, K layers in which the text looks at the image, H heads, L
text tokens, S = 1 + rows * columns image tokens, of which the first is [CLS].

A method is a function `Trace` -> (n, rows, columns), finite and not negative, not scaled. Padding
of a text contributes nothing to any. Beside it stands one that gives a map of every token, (n, L,
rows, columns): where a method takes the mean over tokens, that of the real ones of these is its
map; where it reads the row of [CLS], they are the rows of all tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from groundwork.models.common.heatmap import explanation, token_support


class Attended(NamedTuple):
    """One attention: `probabilities` (n, H, queries, keys), and the gradient of a score at them in
    the same shape, if the method asks for one."""

    probabilities: Tensor
    gradient: Tensor | None = None

    @property
    def slope(self) -> Tensor:
        """The gradient. Raises RuntimeError if it was not recorded."""
        if self.gradient is None:
            raise RuntimeError("a method uses a gradient that it does not name in METHODS")
        return self.gradient

    @property
    def supporting(self) -> Tensor:
        """(n, queries, keys): mean over heads of relu(gradient * probability)."""
        return (self.slope * self.probabilities).relu().mean(dim=1)


@dataclass(frozen=True)
class Trace:
    """What was recorded while n texts were compared with their images.

    cross: text to image, (n, H, L, S) per recorded layer, the lowest first.
    text_mask: (n, L), 1 where there is a token. grid: rows and columns of patches.
    text: self-attentions (n, H, L, L) of all text layers; the last of them belong to `cross`.
    image: self-attentions (n, H, S, S) of the image encoder. Both are empty unless asked for.
    """

    cross: Sequence[Attended]
    text_mask: Tensor
    grid: tuple[int, int]
    text: Sequence[Attended] = ()
    image: Sequence[Attended] = ()


def grad_cam(trace: Trace) -> Tensor:
    """A * relu(ds / dA) of one layer, mean over heads and tokens: the published map of ALBEF, AMC
    and SelfEQ."""
    (layer,) = trace.cross
    return explanation(layer.probabilities, layer.slope, trace.text_mask, trace.grid)


def raw_attention(trace: Trace) -> Tensor:
    """Where one layer looks, whatever comes of it: mean over heads and tokens."""
    (layer,) = trace.cross
    return _over_tokens(layer.probabilities.mean(dim=1), trace)


def gradient_attention(trace: Trace) -> Tensor:
    """The mean of `grad_cam` over all fusion layers."""
    maps = [
        explanation(layer.probabilities, layer.slope, trace.text_mask, trace.grid)
        for layer in trace.cross
    ]
    return torch.stack(maps).mean(dim=0)


def layer_gradients(trace: Trace) -> Tensor:
    """LeGrad (Bousselham et al. 2024): relu(ds_k / dA_k), mean over heads and tokens, summed over
    layers; s_k is the score as it would be read off layer k."""
    maps = [_over_tokens(layer.slope.relu().mean(dim=1), trace) for layer in trace.cross]
    return torch.stack(maps).sum(dim=0)


def rollout(trace: Trace) -> Tensor:
    """Attention rollout (Abnar and Zuidema 2020) from the image's patches to the text's [CLS].

    Every attention, averaged over heads, is half of a layer and the residual the other half; the
    layers' matrices are multiplied. A row is a distribution over text tokens and image patches.
    """
    return _of_cls(_rolled_out(trace), trace)


def _rolled_out(trace: Trace) -> Tensor:
    image = _identity(trace.cross[0].probabilities.shape[-1], trace)
    for block in trace.image:
        image = (image + block.probabilities.mean(dim=1) @ image) / 2
    text, seen = _start(trace)
    for own, cross in _layers(trace):
        looked = own.probabilities.mean(dim=1)
        text, seen = (text + looked @ text) / 2, (seen + looked @ seen) / 2
        if cross is not None:
            text, seen = text / 2, (seen + cross.probabilities.mean(dim=1) @ image) / 2
    return seen


def relevance(trace: Trace) -> Tensor:
    """Relevance propagation (Chefer et al., ICCV 2021, equations 5 to 10): A = mean over heads of
    relu(ds / dA * A); self-attention R += A R; cross-attention R_ti += norm(R_tt)^T A norm(R_ii).
    The row of the text's [CLS], off which the score is read."""
    return _of_cls(_related(trace), trace)


def _related(trace: Trace) -> Tensor:
    image = _identity(trace.cross[0].probabilities.shape[-1], trace)
    for block in trace.image:
        image = image + block.supporting @ image
    text, seen = _start(trace)
    for own, cross in _layers(trace):
        looked = own.supporting
        text, seen = text + looked @ text, seen + looked @ seen
        if cross is not None:
            seen = seen + _normed(text).mT @ cross.supporting @ _normed(image)
    return seen


def _gradient_tokens(trace: Trace) -> Tensor:
    """Of `grad_cam` and `gradient_attention`."""
    maps = [
        token_support(layer.probabilities, layer.slope, trace.text_mask) for layer in trace.cross
    ]
    # Theirs is a mean over all positions; this makes it one over the real ones.
    share = trace.text_mask.float().mean(dim=1)[:, None, None]
    return (torch.stack(maps).mean(dim=0) * share).unflatten(-1, trace.grid)


def _attention_tokens(trace: Trace) -> Tensor:
    """Of `raw_attention`."""
    (layer,) = trace.cross
    return _of_tokens(layer.probabilities.mean(dim=1), trace)


def _layer_tokens(trace: Trace) -> Tensor:
    """Of `layer_gradients`."""
    slopes = [layer.slope.relu().mean(dim=1) for layer in trace.cross]
    return _of_tokens(torch.stack(slopes).sum(dim=0), trace)


def _of_tokens(support: Tensor, trace: Trace) -> Tensor:
    """(n, L, S) -> (n, L, rows, columns); 0 on padding."""
    mask = trace.text_mask[:, :, None].to(support.dtype)
    return (support[..., 1:] * mask).unflatten(-1, trace.grid)


def _over_tokens(support: Tensor, trace: Trace) -> Tensor:
    """(n, L, S) -> (n, rows, columns): mean over the real tokens; 0 for a text without any."""
    mask = trace.text_mask[:, :, None].to(support.dtype)
    total = (support[..., 1:] * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
    return total.unflatten(-1, trace.grid)


def _identity(size: int, trace: Trace) -> Tensor:
    like = trace.cross[0].probabilities
    eye = torch.eye(size, dtype=like.dtype, device=like.device)
    return eye.expand(trace.text_mask.shape[0], size, size)


def _start(trace: Trace) -> tuple[Tensor, Tensor]:
    """Before any layer a token is itself, (n, L, L), and has seen nothing, (n, L, S)."""
    pairs, _, tokens, patches = trace.cross[0].probabilities.shape
    return _identity(tokens, trace), trace.cross[0].probabilities.new_zeros(pairs, tokens, patches)


def _layers(trace: Trace) -> list[tuple[Attended, Attended | None]]:
    """Self-attention and cross-attention of every text layer; the lower ones have none to the
    image."""
    lower = len(trace.text) - len(trace.cross)
    return list(zip(trace.text, [*[None] * lower, *trace.cross], strict=True))


def _normed(relevancy: Tensor) -> Tensor:
    """Chefer et al., equations 8 and 9: what was added to the identity, by rows of sum 1."""
    eye = torch.eye(relevancy.shape[-1], dtype=relevancy.dtype, device=relevancy.device)
    added = relevancy - eye
    total = added.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, added / total.where(total > 0, 1), 0) + eye


def _of_cls(seen: Tensor, trace: Trace) -> Tensor:
    return seen[:, 0, 1:].unflatten(-1, trace.grid)


@dataclass(frozen=True)
class Method:
    """A way to read a heat map off a network.

    heatmaps: what it makes of a trace. tokens: the same of every token, see the head of this file.
    layers: what it needs recorded: "explained", one cross-attention; "fusion", all of them; "all",
    the self-attentions of both encoders, too. gradient: "none"; "match", of the score; "layer", of
    the score as read off each layer. over_padding: its maps are means over all L positions, as
    released, and so the smaller the longer the other texts of a batch are.
    """

    heatmaps: Callable[[Trace], Tensor]
    tokens: Callable[[Trace], Tensor]
    layers: Literal["explained", "fusion", "all"] = "explained"
    gradient: Literal["none", "match", "layer"] = "match"
    over_padding: bool = False


METHODS: dict[str, Method] = {
    "gradcam": Method(grad_cam, _gradient_tokens, over_padding=True),
    "attention": Method(raw_attention, _attention_tokens, gradient="none"),
    "rollout": Method(rollout, lambda trace: _of_tokens(_rolled_out(trace), trace), "all", "none"),
    "gradient_attention": Method(gradient_attention, _gradient_tokens, "fusion", over_padding=True),
    "relevance": Method(relevance, lambda trace: _of_tokens(_related(trace), trace), "all"),
    "legrad": Method(layer_gradients, _layer_tokens, "fusion", "layer"),
}
"""The methods by the names that `--explain` and `model.explanation.method` take."""
