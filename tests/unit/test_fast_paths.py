"""What is computed in a faster way is what the plain way gives, gradients included."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import profile
from torchvision.ops import FrozenBatchNorm2d

from groundwork import utils
from groundwork.engine import evaluation, precision
from groundwork.engine.precision import chosen, computing, plain_attention, rounded_weights
from groundwork.models.albef.explainer import Explainer
from groundwork.models.common.attention import MultiheadAttention
from groundwork.models.common.normalised import normalised
from tests.helpers import tiny_albef, tiny_reftr

WIDTH, HEADS = 24, 3


def gradients_of(module: nn.Module, output: torch.Tensor) -> dict[str, torch.Tensor]:
    output.square().mean().backward()
    found = {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
    module.zero_grad()
    return found


def assert_close(ours, theirs) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


# --- attention ------------------------------------------------------------------------------------


def both_attentions() -> tuple[MultiheadAttention, nn.MultiheadAttention]:
    ours = MultiheadAttention(WIDTH, HEADS, 0.1).eval()
    theirs = nn.MultiheadAttention(WIDTH, HEADS, 0.1, batch_first=True).eval()
    with torch.no_grad():
        ours.in_proj_bias.normal_()
        ours.out_proj.bias.normal_()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("same", ["all", "query and key", "none"])
@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_torch_attention(need_weights, same, padded):
    ours, theirs = both_attentions()
    query, key, value = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH), torch.randn(2, 7, WIDTH)
    if same != "none":
        query = key
    if same == "all":
        value = key
    padding = torch.arange(7).expand(2, -1) >= torch.tensor([[4], [7]]) if padded else None
    mixed, shares = ours(query, key, value, padding=padding, need_weights=need_weights)
    expected, expected_shares = theirs(
        query, key, value, key_padding_mask=padding, need_weights=need_weights
    )
    assert_close(mixed, expected)
    assert (shares is None) == (not need_weights)
    if need_weights:
        assert_close(shares, expected_shares)
    assert_close(gradients_of(ours, mixed), gradients_of(theirs, expected))


def test_attention_begins_with_torch_weights():
    torch.manual_seed(1)
    ours = MultiheadAttention(WIDTH, HEADS, 0.0).state_dict()
    torch.manual_seed(1)
    theirs = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True).state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_dropped_attention_is_that_of_torch():
    ours, theirs = (part.train() for part in both_attentions())
    query, memory = torch.randn(2, 5, WIDTH), torch.randn(2, 7, WIDTH)
    for need_weights in (False, True):
        torch.manual_seed(2)
        found = ours(query, memory, memory, need_weights=need_weights)
        torch.manual_seed(2)
        expected = theirs(query, memory, memory, need_weights=need_weights)
        assert_close(
            [part for part in found if part is not None],
            [part for part in expected if part is not None],
        )


# --- norms in the weights of their convolutions ---------------------------------------------------


def scrambled(norm: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, values in [*norm.named_parameters(), *norm.named_buffers()]:
            if values.is_floating_point():
                values.uniform_(0.5, 2.0) if name != "running_mean" else values.normal_()
    return norm


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False),
        nn.Conv2d(4, 6, 3, padding=2, dilation=2),
        nn.Conv2d(4, 6, 1, groups=2),
    ],
    ids=["stride", "dilation and bias", "groups"],
)
@pytest.mark.parametrize("kind", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_a_fixed_norm_in_the_weights_is_the_norm_of_the_maps(convolution, kind):
    norm, maps = scrambled(kind(6)).eval(), torch.randn(2, 4, 9, 8)
    both = nn.ModuleList([convolution, norm])
    found, expected = normalised(convolution, norm, maps), norm(convolution(maps))
    assert_close(found, expected)
    assert_close(gradients_of(both, found), gradients_of(both, expected))


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.GroupNorm(2, 6)], ids=["batch", "group"])
def test_a_norm_that_reads_its_maps_is_applied_to_them(norm):
    convolution, maps = nn.Conv2d(4, 6, 3), torch.randn(2, 4, 9, 8)
    assert_close(normalised(convolution, scrambled(norm), maps), norm(convolution(maps)))
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.num_batches_tracked == 2


def test_a_batch_norm_in_evaluation_keeps_the_published_order_in_single_precision():
    convolution, norm = nn.Conv2d(4, 6, 3), scrambled(nn.BatchNorm2d(6)).eval()
    maps = torch.randn(2, 4, 9, 8)
    assert torch.equal(normalised(convolution, norm, maps), norm(convolution(maps)))


@pytest.mark.parametrize("kind", [FrozenBatchNorm2d, nn.BatchNorm2d])
def test_half_precision_stays_half_behind_a_fixed_norm(kind, monkeypatch):
    convolution, norm = nn.Conv2d(4, 6, 3), scrambled(kind(6)).eval()
    maps = torch.randn(2, 4, 9, 8)
    expected = norm(convolution(maps))

    def applied(*_):
        raise AssertionError("the norm is applied to the maps")

    monkeypatch.setattr(norm, "forward", applied)
    with torch.autocast("cpu", torch.bfloat16):
        found = normalised(convolution, norm, maps)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, rtol=0.02, atol=0.05)


# --- which kernel computes an attention -----------------------------------------------------------


FUSED = "aten::_scaled_dot_product_flash_attention_for_cpu"


def kernels_of(call, *, gradient: bool) -> set[str]:
    """What an attention in bf16 runs on the CPU."""
    query, key = torch.randn(1, 2, 4, 8), torch.randn(1, 2, 300, 8)
    query.requires_grad_(gradient)
    with profile() as profiler, computing(torch.device("cpu"), "bf16"):
        call(query.bfloat16(), key.bfloat16())
    return {event.key for event in profiler.key_averages()}


def named(query: Tensor, key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key=key, value=key)


def as_timm_calls_it(query: Tensor, key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(
        query, key, key, attn_mask=None, dropout_p=0.0, is_causal=False
    )


@pytest.mark.parametrize("call", [named, as_timm_calls_it])
@pytest.mark.parametrize("gradient", [True, False])
def test_attention_is_fused_where_no_gradient_goes_through(call, gradient, monkeypatch):
    monkeypatch.setattr(precision, "fused_wants_tiles", lambda: False)
    assert (FUSED in kernels_of(call, gradient=gradient)) is not gradient


@pytest.mark.parametrize("call", [named, as_timm_calls_it])
def test_attention_of_bf16_by_vectors_is_fused_only_beyond_the_cache(call, monkeypatch):
    monkeypatch.setattr(precision, "fused_wants_tiles", lambda: True)
    assert FUSED not in kernels_of(call, gradient=False)
    monkeypatch.setattr(precision, "CACHED_SCORES", 2 * 4 * 300 - 1)
    assert FUSED in kernels_of(call, gradient=False)
    assert FUSED not in kernels_of(call, gradient=True)


@pytest.mark.parametrize(
    ("flags", "expected"),
    [("avx2", False), ("avx512f avx512_bf16", True), ("avx512_bf16 amx_tile amx_bf16", False)],
)
def test_which_processor_multiplies_bf16_by_vectors_alone(flags, expected, monkeypatch):
    monkeypatch.setattr(utils, "_cpu", lambda key: flags if key == "flags" else "")
    assert utils.computes_in_bf16_without_tiles() == expected


def causal_by_name(query: Tensor, key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, key, is_causal=True)


def causal_by_place(query: Tensor, key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, key, None, 0.0, True)


def scaled(query: Tensor, key: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, key, scale=0.1)


@pytest.mark.parametrize("call", [causal_by_name, causal_by_place, scaled])
def test_what_plain_attention_does_not_do_is_left_to_torch(call):
    assert FUSED in kernels_of(call, gradient=True)
    query, key = torch.randn(1, 2, 5, 8, requires_grad=True), torch.randn(1, 2, 5, 8)
    with computing(torch.device("cpu"), "bf16"):
        found = call(query, key)
    torch.testing.assert_close(found.float(), call(query, key), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("mask", ["none", "bool", "added"])
def test_plain_attention_is_attention(mask):
    query, key, value = (
        torch.randn(2, 3, length, 8, dtype=torch.float64, requires_grad=True)
        for length in (5, 7, 7)
    )
    seen = torch.rand(2, 1, 1, 7) > 0.4
    seen[..., 0] = True
    masks = {
        "none": None,
        "bool": seen,
        "added": torch.randn(2, 1, 5, 7, dtype=torch.float64),
    }
    found = plain_attention(query, key, value, masks[mask])
    expected = F.scaled_dot_product_attention(query, key, value, masks[mask])
    assert_close(found, expected)
    weight = torch.randn_like(found)
    for one, other in zip(
        torch.autograd.grad((found * weight).sum(), (query, key, value)),
        torch.autograd.grad((expected * weight).sum(), (query, key, value)),
        strict=True,
    ):
        assert_close(one, other)


def test_a_query_that_sees_no_key_is_finite():
    query = torch.randn(1, 1, 2, 8, requires_grad=True)
    nothing = torch.zeros(1, 1, 1, 3, dtype=torch.bool)
    found = plain_attention(
        query, query[..., :1, :].expand(1, 1, 3, 8), query.new_ones(1, 1, 3, 8), nothing
    )
    assert_close(found, torch.ones_like(found))
    (gradient,) = torch.autograd.grad(found.sum(), query)
    assert gradient.isfinite().all()


# --- weights that are rounded once per evaluation -------------------------------------------------


class ExplainedAlbef:
    model = Explainer(tiny_albef.tiny_model(momentum=False)).eval()
    batch = {
        "image": torch.randn(2, 3, 32, 32),
        "text_ids": torch.randint(5, 64, (3, 7)),
        "text_mask": torch.ones(3, 7, dtype=torch.long),
        "phrase_image": torch.tensor([0, 0, 1]),
    }


class BoxesOfReftr:
    model = tiny_reftr.tiny_reftr().eval()
    batch = tiny_reftr.tiny_batch()


@pytest.mark.parametrize("subject", [ExplainedAlbef, BoxesOfReftr])
def test_weights_rounded_once_are_those_of_autocast(subject):
    model, batch = subject.model, subject.batch
    before = {name: value.clone() for name, value in model.state_dict().items()}
    weights = rounded_weights(model, "bf16")
    assert {value.dtype for value in weights.values()} == {torch.bfloat16}
    with torch.no_grad(), computing(torch.device("cpu"), "bf16"):
        expected = model(batch)
        found = functional_call(model, weights, (batch,))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not rounded_weights(model, "fp32")


def test_what_else_reads_a_weight_gets_it_unrounded():
    text = tiny_albef.tiny_model(momentum=False).text_encoder
    rounded = rounded_weights(text, "bf16")
    tied = text.cls.predictions.decoder.weight
    assert tied is text.bert.embeddings.word_embeddings.weight
    assert not any(text.get_parameter(name) is tied for name in rounded)
    assert "bert.encoder.layer.0.attention.self.query.weight" in rounded


@pytest.mark.parametrize(
    ("flags", "auto"),
    [("fpu avx2", "fp32"), ("avx512f avx512_bf16", "bf16"), ("amx_tile amx_bf16", "bf16"),
     ("fp asimd bf16", "bf16"), ("", "fp32")],
)  # fmt: skip
def test_auto_is_half_precision_where_the_processor_has_arithmetic_for_it(
    flags, auto, monkeypatch, caplog
):
    monkeypatch.setattr(utils, "_cpu", lambda key: flags if key == "flags" else "")
    chosen.cache_clear()
    cpu = torch.device("cpu")
    assert chosen("auto", cpu) == auto
    assert chosen("fp32", cpu) == "fp32"
    caplog.clear()
    assert [chosen("bf16", cpu), chosen("bf16", cpu)] == ["bf16"] * 2
    warned = [record.getMessage() for record in caplog.records]
    assert len(warned) == (auto == "fp32")
    assert all("is imitated by" in text and "precision: auto" in text for text in warned)
    chosen.cache_clear()


def test_an_evaluation_in_half_precision_rounds_the_weights_once(monkeypatch):
    model, batch, rounded, boxes = BoxesOfReftr.model, BoxesOfReftr.batch, [], []

    def counted(*given):
        rounded.append(rounded_weights(*given))
        return rounded[-1]

    def postprocess(outputs, _):
        boxes.append(outputs["pred_boxes"])
        return []

    monkeypatch.setattr(evaluation, "rounded_weights", counted)
    cpu = torch.device("cpu")
    for _ in evaluation.evaluate(model, postprocess, [batch] * 3, device=cpu, precision="bf16"):
        assert not torch.is_autocast_enabled("cpu"), "who reads the results computes as before"
    assert len(rounded) == 1 and len(boxes) == 3
    with torch.no_grad():
        single = model(batch)["pred_boxes"]
    torch.testing.assert_close(boxes[2], single, rtol=0, atol=0.02)
    assert not torch.equal(boxes[2], single)
