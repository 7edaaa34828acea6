"""Graphs of some outputs of a network hold what these need, and no less."""

import torch
from torch import Tensor, nn

from groundwork.models.common.image_first import ImageFirst
from groundwork.models.common.traced import trace


class Network(ImageFirst):
    """One output of the images, one of the texts, which are written part by part into zeros; both
    with operations in place."""

    inputs = ("image", "text_ids")
    outputs = ("seen", "read")

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def encode(self, batch) -> list[Tensor]:
        image = batch["image"]
        maps = torch.relu_(self.norm(self.convolution(image)))
        maps += image
        return [torch.relu_(maps)]

    def answer(self, seen, batch) -> dict[str, Tensor]:
        ids = batch["text_ids"].float()
        read = torch.zeros_like(ids)
        read[:, 0] = ids[:, 0] * 2
        read[:, 1].add_(3)
        return {"seen": seen[0].mean((1, 2, 3)), "read": read}


def test_what_is_written_into_a_view_stays_and_what_another_output_needs_goes():
    torch.manual_seed(0)
    network = Network().eval()
    example = {
        "image": torch.randn(2, 3, 4, 4),
        "text_ids": torch.randint(9, (5, 7)),
        "phrase_image": torch.tensor([0, 0, 1, 1, 0]),
    }
    axes = {"image": {0: "images"}, "text_ids": {0: "texts"}, "phrase_image": {0: "texts"}}
    with torch.no_grad():
        expected = network.answer_each(network.encode(example), example)
    for output, inputs, weights in (
        ("read", ("text_ids",), False),
        ("seen", ("image", "phrase_image"), True),
    ):
        found = trace(network, example, axes, [output])
        assert (found.inputs, found.outputs) == (inputs, (output,))
        assert bool(found.program.state_dict) == weights
        given = [example[name] for name in inputs]
        (value,) = found.program.module()(*(one.clone() for one in given))
        assert torch.allclose(value, expected[output])
