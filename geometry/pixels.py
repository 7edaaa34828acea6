"""What is subtracted from and divides the pixels, in [0, 1], of images before networks see them."""

from collections.abc import Mapping

Triple = tuple[float, float, float]
CLIP: tuple[Triple, Triple] = (
    (0.48145466, 0.4578275, 0.40821073),
    (0.26862954, 0.26130258, 0.27577711),
)
IMAGENET: tuple[Triple, Triple] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
UNIT: tuple[Triple, Triple] = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
NORMALISATIONS: Mapping[str, tuple[Triple, Triple]] = {
    "clip": CLIP,
    "imagenet": IMAGENET,
    "unit": UNIT,
}
"""Name -> mean and deviation of the three colours."""
