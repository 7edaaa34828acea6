"""Which images are trained on, which choose a checkpoint, which are only reported."""

from collections.abc import Mapping, Sequence
from hashlib import sha256


def split_images(
    groups: Sequence[Sequence[str]], shares: Mapping[str, float], seed: int
) -> dict[str, str]:
    """image -> "train", or a split of `shares`; the images of a group are in one split.

    Which group goes where follows from the names of its images and the seed, not from their order.

    Args:
        groups: of images that show the same. shares: split -> its share of all images.

    Raises:
        ValueError: too few different images for all splits.
    """
    total = sum(map(len, groups))
    room = {split: max(1, round(share * total)) for split, share in shares.items() if share}
    wanted = {*room, "train"}
    placed: dict[str, str] = {}
    drawn = sorted(groups, key=lambda names: sha256(f"{seed} {min(names)}".encode()).digest())
    for names in drawn:
        split = next((name for name, left in room.items() if len(names) <= left), "train")
        if split in room:
            room[split] -= len(names)
        placed |= dict.fromkeys(names, split)
    if empty := sorted(wanted - set(placed.values())):
        raise ValueError(
            f"{total} images with places, {len(groups)} different ones, leave none for"
            f" {' and '.join(empty)}; annotate more, or set --{empty[0].replace('train', 'val')} 0"
        )
    return placed
