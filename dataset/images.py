"""Finding and decoding images; every failure names the file, the record and the remedy."""

import io
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path, PurePath

import cv2
import numpy as np
from PIL import Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import TiffImageFile

from groundwork.files.foreign import forward_slashes
from groundwork.files.safe import inside, require_file_name
from groundwork.files.shards import Member, is_shards, shards_at

ImagePlace = Path | Member
"""Where an image is: a file, or in a tar shard. As text its path: shards are like a folder."""
Readable = Path | io.BytesIO

TURN_REMEDY = (
    "; with exchanged sides it would fit, which is what an EXIF orientation does: data.opener:"
    " pillow reads images as they are stored, shown and opencv as they are shown"
)
# What decoders raise on damaged or unusual files depends on the bytes.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    cv2.error,
    Image.DecompressionBombError,
)
_BITS_PER_SAMPLE = 258  # a tag of TIFF
_END_OF_JPEG = b"\xff\xd9"  # libjpeg adds it to a file that is cut, but not to bytes in memory
_LENIENT = threading.Lock()


class CorruptImageError(ValueError):
    """An image file exists but cannot be decoded completely, or not be brought to the network's
    size."""


def resolve_image(
    image_root: str, image: str, source: str = "", *, allow_outside: bool = False
) -> ImagePlace:
    """Where the image `image` of an annotation file is.

    Published annotation files hold absolute paths of their authors' machines, and files by others
    may hold anything, so an image is looked for below `image_root` only. In this order:
    `image_root` joined with the path; with the path less its first, its first two, ... folders,
    down to the bare file name; and all of this again with the backslashes of a path of Windows
    turned round. Symbolic links below `image_root` are followed. Of tar shards (`image_root` ends
    with .tar and may have a *, see `files.shards`) the names in them are the paths below it.

    Args:
        allow_outside: take the path as it is, if there is a file, before anything else:
            data.allow_outside_paths.

    Raises:
        FileNotFoundError: none of these exists.
        ValueError: the image is elsewhere, the path leads out of `image_root` by "..", or no file
            can have it.
    """
    try:
        return _resolve(image_root, image, source or "record", allow_outside)
    except FileNotFoundError:
        if "\\" not in image:
            raise
    return _resolve(image_root, forward_slashes(image), source or "record", allow_outside)


def image_at(image_root: str, name: str) -> ImagePlace:
    """The image of exactly that path below the root, as results name it, and no other.

    Raises:
        FileNotFoundError: there is none.
    """
    member = shards_at(image_root).find(name) if is_shards(image_root) else None
    place = member or Path(image_root, name)
    if isinstance(place, Path) and not place.is_file():
        raise FileNotFoundError(f"no image {place}; check image_root")
    return place


def open_root(image_root: str) -> None:
    """Reads where images are in shards, if the root names some, before processes that load images
    are started, which would each do so.

    Raises:
        FileNotFoundError, ValueError: as of `files.shards.shards_at`.
    """
    if is_shards(image_root):
        shards_at(image_root)


def _resolve(image_root: str, image: str, source: str, allow_outside: bool) -> ImagePlace:
    remedy = (
        f"image_root is {image_root!r}. Correct the annotation file or image_root, or, if you trust"
        " the file, set data.allow_outside_paths: true"
    )
    require_file_name(image, f"{source}: image", remedy)
    as_it_is = Path(image_root, image)  # joined with an absolute path, that path
    if allow_outside and as_it_is.is_file():
        return as_it_is
    if is_shards(image_root):
        return _in_shards(image_root, image, f"{source}: image", remedy)
    path = PurePath(os.path.normpath(image))
    root = os.path.abspath(image_root)
    if path.is_relative_to(root):
        path = path.relative_to(root)
    elif path.is_absolute():
        path = path.relative_to(path.anchor)
    elif allow_outside:
        path = PurePath(*(part for part in path.parts if part != ".."))
    else:
        path = inside(image, f"{source}: image", remedy)
    for start in range(len(path.parts)):
        candidate = Path(image_root, *path.parts[start:])
        if candidate.is_file():
            return candidate
    if as_it_is.is_file():
        raise ValueError(f"{source}: image {image!r} is not below image_root; {remedy}")
    raise FileNotFoundError(
        f"{source}: image {image!r} is not below image_root {image_root!r}; set image_root to the"
        " folder that holds the images"
    )


def _in_shards(root: str, image: str, what: str, remedy: str) -> Member:
    shards, path = shards_at(root), PurePath(os.path.normpath(image))
    if path.is_relative_to(root):
        path = path.relative_to(root)
    elif not path.is_absolute():
        path = inside(image, what, remedy)
    for start in range(len(path.parts)):
        found = shards.find(PurePath(*path.parts[start:]).as_posix())
        if found is not None:
            return found
    raise FileNotFoundError(
        f"{what} {image!r} is in none of the shards {root}, which hold {len(shards)}"
        " files; name the shards that do, or make their index again if they are new"
    )


def readable(place: ImagePlace) -> Readable:
    """The file, or the content, of an image: what Pillow opens."""
    return place if isinstance(place, Path) else io.BytesIO(place.read())


def load_image(place: ImagePlace, source: str = "", opener: str = "pillow") -> np.ndarray:
    """Decode an image: (H, W, 3) uint8 RGB, by one of `OPENERS`.

    Raises:
        CorruptImageError: damaged, no image at all, or pixels that are no 8-bit colours by any
            rule; where the opener does not take them, also truncated files.
        ValueError: no such opener.
        FileNotFoundError, PermissionError, Unreachable: its shard cannot be read.
    """
    if opener not in OPENERS:
        raise ValueError(f"opener {opener!r} is unknown; legal are {', '.join(OPENERS)}")
    file = readable(place)
    try:
        return OPENERS[opener](file)
    except DAMAGE as error:
        raise CorruptImageError(
            f"{source or 'record'}: image {place} cannot be decoded ({error}); fetch the file"
            " again, or set data.tolerate_corrupt: true to go on without it"
        ) from error


def image_size(place: ImagePlace, source: str = "", *, shown: bool) -> tuple[int, int]:
    """(H, W) by the header of an image: as its EXIF orientation says (`shown`), or as stored.

    Raises:
        CorruptImageError: no header that can be read.
    """
    file = readable(place)
    try:
        with Image.open(file) as picture:
            if shown:
                ImageOps.exif_transpose(picture, in_place=True)
            return picture.height, picture.width
    except DAMAGE as error:
        raise CorruptImageError(
            f"{source or 'record'}: image {place} cannot be opened ({error}); fetch the file again"
        ) from error


def _with_pillow(file: Readable) -> np.ndarray:
    """As stored; a truncated file as far as it goes, grey below: that is what was released."""
    # Pillow asks a global: of two threads the later would leave it on for every opener.
    with _LENIENT:
        before = ImageFile.LOAD_TRUNCATED_IMAGES
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            with Image.open(file) as picture:
                return np.asarray(_rgb(picture, require_bits(picture)))
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = before


def _as_shown(file: Readable) -> np.ndarray:
    """Turned as its EXIF orientation says; a truncated file is damaged."""
    with Image.open(file) as picture:
        bits = require_bits(picture)
        return np.asarray(_rgb(ImageOps.exif_transpose(picture), bits))


def _with_opencv(file: Readable) -> np.ndarray:
    """Turned as its EXIF orientation says; 16 bits become 8; CMYK by OpenCV's own rule."""
    _require_size(file)
    image = _opencv(file, cv2.IMREAD_COLOR)
    if image is None:
        image = _deeper_with_opencv(file)
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _opencv(file: Readable, flags: int) -> np.ndarray | None:
    """None: OpenCV reads no image in it."""
    if isinstance(file, Path):
        return cv2.imread(str(file), flags)
    content = file.getvalue() + _END_OF_JPEG
    return cv2.imdecode(np.frombuffer(content, np.uint8), flags)


def _require_size(file: Readable) -> None:
    """Raises for an image of so many pixels that Pillow refuses it: OpenCV takes six times as many,
    of which a file of some kilobytes becomes gigabytes."""
    try:
        with Image.open(file):
            pass
    except Image.DecompressionBombError:
        raise
    except DAMAGE:
        return  # OpenCV may read it all the same.


def _deeper_with_opencv(file: Readable) -> np.ndarray:
    """Of 9 to 15 bits, which OpenCV brings to 16 but not to 8."""
    image = _opencv(file, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    if image is not None and image.dtype == np.uint16:
        return (image.astype(np.uint16) >> 8).astype(np.uint8)
    with Image.open(file) as picture:
        require_bits(picture)
    raise OSError("OpenCV reads no image in it")


def bits_of(picture: ImageFile.ImageFile) -> int:
    """Bits per channel of an open image, by its header."""
    if isinstance(picture, TiffImageFile) and (tag := picture.tag_v2.get(_BITS_PER_SAMPLE)):
        return max(tag) if isinstance(tag, tuple) else int(tag)
    if picture.mode in ("I", "F"):
        return 32
    # Pillow brings several channels of 16 bits to 8 while it decodes.
    deep = picture.mode.startswith("I;16") or any(";16" in str(tile[3]) for tile in picture.tile)
    return 16 if deep else 8


def require_bits(picture: ImageFile.ImageFile) -> int:
    """As `bits_of`; raises OSError for pixels that no rule makes 8 bits of."""
    bits = bits_of(picture)
    if picture.mode in ("I", "F") or bits > 16:
        kind = "floats" if picture.mode == "F" else "numbers"
        raise OSError(f"its pixels are {kind} of 32 bits, mode {picture.mode}; save it as 8 bits")
    return bits


def _rgb(picture: Image.Image, bits: int) -> Image.Image:
    if picture.mode.startswith("I;16"):
        # Pillow would cut everything above 255: all white.
        return Image.fromarray((np.asarray(picture) >> (bits - 8)).astype(np.uint8)).convert("RGB")
    return picture.convert("RGB")


OPENERS: dict[str, Callable[[Readable], np.ndarray]] = {
    "shown": _as_shown,
    "pillow": _with_pillow,
    "opencv": _with_opencv,
}
"""How the published systems open images, and ours.

| opener | of | orientation in EXIF | truncated files | CMYK |
|---|---|---|---|---|
| shown | own data: boxes are of the image as it is shown | applied | damaged | Pillow's rule |
| pillow | ALBEF, AMC, SelfEQ | not applied | as far as they go | Pillow's rule |
| opencv | RefTR, RefCLIP, SimREC, ALVG | applied | as far as they go | OpenCV's rule |

All drop an alpha channel and give palettes and grey images their colours; 16-bit channels are
divided by 256, those of 12 bits by 16; images of floats or 32-bit integers are refused.
"""
