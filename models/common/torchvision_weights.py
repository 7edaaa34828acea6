"""Weights that torchvision publishes and downloads, unless it has them."""

from torch import Tensor
from torchvision.models import get_model_weights

from groundwork.models.common.checkpoint import CheckpointError, first_line


def torchvision_state(name: str, version: str, key: str) -> dict[str, Tensor]:
    """The state dict of a model.

    Args:
        name: of the model. version: of its weights, such as IMAGENET1K_V1 or COCO_V1.
        key: of the configuration that asks for them.

    Raises:
        CheckpointError: they cannot be had here.
    """
    try:
        return get_model_weights(name)[version].get_state_dict()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{key}: torchvision's weights {version} of {name} cannot be had here "
            f"({first_line(error)}); download them elsewhere and give the file"
        ) from error
