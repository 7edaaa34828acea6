"""Backbones of timm from files: where their cells lie, what is frozen, kept and refused."""

import pytest
import timm
import torch

from groundwork.geometry.pixels import NORMALISATIONS
from groundwork.models.common.checkpoint import CheckpointError
from groundwork.models.common.frozen_cache import CacheConfig
from groundwork.models.common.timm_backbone import TimmConfig, initialise_backbone

NAME = "test_resnet"
TINY = TimmConfig(name=NAME, strides=(8, 16))


def image(count: int = 2, side: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "first"),
    # Of patches of 16 pixels, the middle is 7.5.
    [("resnet18", 0.0), ("tf_efficientnet_lite0", 15.0), ("convnext_atto", 7.5)],
)
def test_the_first_cell_lies_where_the_padding_puts_it(name, first):
    moved = TimmConfig(name=name, strides=(16,)).build("clip").moved
    assert moved.starts[0] + moved.margin == first
    assert abs(moved.starts[0] % 16 - 7.5) <= 0.5, "moved onto its patch"


def test_maps_have_a_cell_for_every_patch_of_any_image():
    maps = TINY.build("unit")(image()[:, :, :50, :41])
    assert [one.shape[-2:] for one in maps] == [(7, 6), (4, 3)]
    (joined,) = TINY.build("unit", joined=True)(image()[:, :, :50, :41])
    assert joined.shape[1:] == (sum(one.shape[1] for one in maps), 7, 6)


def test_the_network_sees_the_pixels_of_an_image_however_they_come():
    torch.manual_seed(0)
    backbones = {how: TINY.build(how) for how in NORMALISATIONS}
    first = backbones["unit"].state_dict()
    seen = []
    for how, backbone in backbones.items():
        backbone.load_state_dict(first)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in NORMALISATIONS[how])
        seen.append(backbone((image().sigmoid() - mean) / deviation)[0])
    torch.testing.assert_close(seen[0], seen[1])
    torch.testing.assert_close(seen[0], seen[2])


def test_a_frozen_network_stays_as_it_is_in_training():
    backbone = TINY.build("clip").train()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    assert not any(one.requires_grad for one in backbone(image()))
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_a_trained_network_has_gradients_and_keeps_its_statistics():
    backbone = TimmConfig(name=NAME, strides=(8, 16), train=True).build("clip").train()
    sum(one.sum() for one in backbone(image())).backward()
    assert backbone.moved.body.conv1[0].weight.grad.abs().sum() > 0
    statistics = {k: v for k, v in backbone.state_dict().items() if "running" in k}
    assert statistics and all(v.unique().numel() == 1 for v in statistics.values())


def test_maps_of_a_frozen_network_are_computed_once_per_image(tmp_path):
    config = TimmConfig(name=NAME, strides=(8, 16), cache=CacheConfig(folder=str(tmp_path)))
    backbone = config.build("clip")
    first, second = backbone(image()), backbone(image())
    assert (backbone.cache.misses, backbone.cache.hits) == (2, 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for one, plain in zip(first, TINY.build("clip")(image()), strict=True):
        assert one.shape == plain.shape
    coarse = TimmConfig(name=NAME, strides=(16,), cache=config.cache).build("clip")
    coarse.moved.body.load_state_dict(backbone.moved.body.state_dict(), strict=False)
    assert len(coarse(image())) == 1, "other maps of a network are not taken for these"


@pytest.mark.parametrize("renamed", [False, True])
def test_weights_are_read_by_name_or_by_order(tmp_path, renamed):
    torch.manual_seed(1)
    source = timm.create_model(NAME).state_dict()
    names = {name: f"part{place}" if renamed else name for place, name in enumerate(source)}
    torch.save({names[name]: value for name, value in source.items()}, tmp_path / "weights.pth")
    backbone = TINY.build("clip")
    report = str(initialise_backbone(backbone, str(tmp_path / "weights.pth")))
    assert ("not timm's" in report) is renamed
    for name, value in backbone.moved.body.state_dict().items():
        assert torch.equal(value, source[name]), name


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(timm.create_model("test_convnext").state_dict(), tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="neither names nor shapes.*first at conv1"):
        initialise_backbone(TINY.build("clip"), str(tmp_path / "other.pth"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "no_such_network"}, "timm has no 'no_such_network'"),
        ({"name": NAME, "strides": (7,)}, "no map of stride 7; legal: "),
        ({"name": NAME, "strides": (16, 8)}, "finest first"),
        ({"name": NAME, "train": True, "cache": CacheConfig(folder="x")}, "cache needs train"),
    ],
)
def test_what_cannot_be_built_is_said(options, message):
    with pytest.raises(ValueError, match=message):
        TimmConfig(**options).build("clip")
