"""Linear maps by oneDNN: the same numbers and gradients as torch's, where they are faster."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.profiler import profile

from groundwork import utils
from groundwork.engine import linear as module
from groundwork.engine.linear import linear, onednn_is_faster
from groundwork.engine.precision import Instead, computing

CPU = torch.device("cpu")
ONEDNN = "mkldnn::_linear_pointwise"
pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="this build of torch has no oneDNN"
)
close = partial(torch.testing.assert_close, rtol=1e-4, atol=1e-4)


def called(step) -> set[str]:
    """The names of torch's operators that `step` calls."""
    with profile() as profiler:
        step()
    return {event.key for event in profiler.key_averages()}


def inputs(*shape: int, outputs: int, bias: bool = True) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    made = [torch.randn(*shape), torch.randn(outputs, shape[-1]), torch.randn(outputs)]
    return [each.requires_grad_() for each in made[: 2 + bias]] + [None] * (not bias)


@pytest.mark.parametrize(
    ("shape", "bias"), [((300, 160), True), ((3, 100, 160), True), ((5, 4, 15, 160), False)]
)
def test_values_gradients_and_their_gradients_are_torchs(shape, bias):
    found = []
    for map_ in (linear, F.linear):
        given = inputs(*shape, outputs=192, bias=bias)
        wanted = [each for each in given if each is not None]
        value = map_(*given)
        gradients = torch.autograd.grad(value.square().mean(), wanted, create_graph=True)
        second = torch.autograd.grad(sum(each.square().sum() for each in gradients), wanted)
        found.append([value, *gradients, *second])
    for ours, theirs in zip(*found, strict=True):
        close(ours, theirs)
    assert ONEDNN in called(lambda: linear(*inputs(*shape, outputs=192, bias=bias)))


def test_rows_in_any_order_of_memory():
    states, weight = torch.randn(160, 4, 100), torch.randn(192, 160)
    turned = states.permute(2, 1, 0)
    close(linear(turned, weight.t().contiguous().t()), F.linear(turned, weight))
    expanded = states[:, :1].permute(2, 1, 0).expand(-1, 4, -1)
    close(linear(expanded, weight), F.linear(expanded, weight))
    cut = torch.randn(300, 200)[:, :160]
    close(linear(cut, weight), F.linear(cut, weight))
    close(linear(cut.contiguous(), cut), F.linear(cut, cut))


@pytest.mark.parametrize(
    "given",
    [
        inputs(2, 8, outputs=4),
        inputs(0, 8, outputs=4),
        [torch.randn(4096, requires_grad=True), torch.randn(1024, 4096), None],
        [torch.randn(300, 160).double(), torch.randn(192, 160).double(), None],
        [torch.randn(300, 160).bfloat16(), torch.randn(192, 160).bfloat16(), None],
    ],
    ids=["small", "empty", "vector", "double", "half"],
)
def test_what_is_small_or_in_another_precision_is_torchs_own(given):
    states, weight, bias = given
    assert ONEDNN not in called(lambda: linear(states, weight, bias))
    torch.testing.assert_close(linear(states, weight, bias), F.linear(states, weight, bias))


def test_layouts_of_a_bias_that_onednn_would_misread():
    states, weight = torch.randn(300, 160), torch.randn(192, 160)
    for bias in (
        torch.randn(384)[::2],
        torch.randn(192, 3)[:, 1],
        torch.ones(1).expand(192),
        torch.tensor(1.5),
        torch.ones(1),
    ):
        close(linear(states, weight, bias), F.linear(states, weight, bias))


def test_what_it_gives_can_be_changed_in_place():
    model = nn.Sequential(nn.Linear(160, 192), nn.ReLU(inplace=True), nn.Linear(192, 160))
    states = torch.randn(3, 300, 160)
    gradients = []
    for mode in (nullcontext(), Instead(F.linear, linear)):
        model.zero_grad()
        with mode:
            loss = model(states).relu_().square().mean()
        loss.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for ours, theirs in zip(*gradients, strict=True):
        close(ours, theirs)


def test_autocast_within_and_onednn_switched_off_are_heeded(monkeypatch):
    states, weight = torch.randn(300, 160), torch.randn(192, 160)
    with Instead(F.linear, linear), torch.autocast("cpu", dtype=torch.bfloat16):
        assert F.linear(states, weight).dtype == torch.bfloat16
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert ONEDNN not in called(lambda: linear(states, weight))
    monkeypatch.undo()
    assert ONEDNN in called(lambda: linear(states, weight))


def test_sizes_that_do_not_fit_are_told_as_torch_tells_them():
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        linear(torch.randn(300, 200), torch.randn(192, 160))


@pytest.mark.parametrize(
    ("flags", "maker", "faster"),
    [
        ("fpu avx2 avx512f", "AuthenticAMD", True),
        ("fpu avx2 avx512f", "GenuineIntel", False),
        ("fpu avx2", "AuthenticAMD", False),
        ("", "", False),
    ],
)
def test_only_avx512_beside_intel_takes_them(flags, maker, faster, monkeypatch):
    known = {"flags": flags, "vendor_id": maker}
    monkeypatch.setattr(utils, "_cpu", lambda key: known.get(key, ""))
    monkeypatch.setattr(module, "SMALL", 0)
    layer, states = nn.Linear(8, 8), torch.randn(4, 8)

    def step(precision: str) -> set[str]:
        with computing(CPU, precision):
            return called(lambda: layer(states))

    onednn_is_faster.cache_clear()
    assert onednn_is_faster() == faster
    assert (ONEDNN in step("fp32")) == faster
    assert ONEDNN not in step("bf16")
    onednn_is_faster.cache_clear()


def test_a_module_trains_under_the_mode_as_without(monkeypatch):
    monkeypatch.setattr(module, "SMALL", 0)
    weights = []
    for mode in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 4))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            if mode:
                with Instead(F.linear, linear):
                    loss = model(torch.randn(6, 8)).square().mean()
            else:
                loss = model(torch.randn(6, 8)).square().mean()
            loss.backward()
            optimizer.step()
        weights.append(list(model.parameters()))
    for ours, theirs in zip(*weights, strict=True):
        close(ours, theirs)
