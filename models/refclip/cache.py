"""What a frozen detector sees in an image, computed once and kept on disk."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from groundwork import utils
from groundwork.files.safe import atomic_write
from groundwork.models.refclip.detector import Detection


class DetectionCache:
    """Remembers detections by the pixels of the image and the weights of the detector.

    So neither another size, another image under an old name nor another detector finds old
    values. When the folder has its size, nothing more is added: a training goes through all
    images in turn, so that making room would only throw out what is needed next.

    Args:
        folder: receives a file per image; may be shared by runs and processes.
        gigabytes: the folder's size, at most; of 10^9 bytes.
        half: keep half precision, in half the space; the detections are then rounded.
    """

    def __init__(self, folder: str | Path, gigabytes: float, *, half: bool = False):
        self.folder, self.half = Path(folder), half
        self._kind = torch.float16 if half else torch.float32
        self._limit = gigabytes * 1e9
        self._room: float | None = None
        self._weights: tuple[tuple[int, ...], bytes] | None = None
        self.hits = self.misses = 0

    def __call__(self, detector: nn.Module, image: Tensor) -> Detection:
        """Image (B, 3, S, S) -> what the detector, in evaluation mode, sees in it."""
        weights = self._weights_of(detector) + precision_of(image.device.type)
        files = [self._file(one, weights) for one in image.cpu().numpy()]
        # An image comes once for each of its expressions: the first of them is computed.
        missing = {file: files.index(file) for file in dict.fromkeys(files) if not file.is_file()}
        self.hits, self.misses = self.hits + len(files) - len(missing), self.misses + len(missing)
        found: dict[Path, list[Tensor]] = {}
        if missing:
            seen = detector(image[list(missing.values())])
            for place, file in enumerate(missing):
                kept = [part[place].to(self._kind) for part in seen]
                self._write(file, kept)
                found[file] = [part.float() for part in kept]  # the same as when it is read
        for file in files:
            if file not in found:
                with np.load(file, allow_pickle=False) as arrays:
                    parts = [torch.from_numpy(arrays[name]) for name in Detection._fields]
                found[file] = [part.to(image.device, torch.float32) for part in parts]
        rows = [found[file] for file in files]
        return Detection(*(torch.stack(parts) for parts in zip(*rows, strict=True)))

    def _file(self, image: np.ndarray, weights: bytes) -> Path:
        digest = hashlib.blake2b(weights + bytes(str(image.shape), "ascii"), digest_size=20)
        digest.update(image.tobytes())
        name = digest.hexdigest() + ("h" if self.half else "")
        return self.folder / name[:2] / f"{name}.npz"

    def _weights_of(self, detector: nn.Module) -> bytes:
        state = list(detector.state_dict().values())
        # Torch counts how often a tensor was written to: the weights are hashed once.
        versions = tuple(value._version for value in state)
        if self._weights is None or self._weights[0] != versions:
            digest = hashlib.blake2b(digest_size=20)
            for value in state:
                digest.update(value.detach().cpu().numpy().tobytes())
            self._weights = (versions, digest.digest())
        return self._weights[1]

    def _write(self, file: Path, parts: list[Tensor]) -> None:
        size = sum(part.nbytes for part in parts) + 2000  # with the file's own words
        if self._room is None:
            used = sum(one.stat().st_size for one in self.folder.rglob("*.npz"))
            # Every process fills its share of the room.
            self._room = (self._limit - used) / utils.world_size()
        if size > self._room:
            return
        self._room -= size
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as partial, open(partial, "wb") as stream:
            s8, s16, s32, boxes = (part.cpu().numpy() for part in parts)
            np.savez(stream, s8=s8, s16=s16, s32=s32, boxes=boxes)


def precision_of(device: str) -> bytes:
    """In which precision a network computes here: maps of another are other maps."""
    autocast = torch.is_autocast_enabled(device)
    return bytes(str(torch.get_autocast_dtype(device)), "ascii") if autocast else b""
