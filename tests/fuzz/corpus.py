"""Image files of every kind that people have: sound ones to damage, and bombs."""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

SIZE = (60, 40)
TURNED = 6
_ORIENTATION = 0x0112


def _pixels(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def _images() -> dict[str, bytes]:
    width, height = SIZE
    colour = Image.fromarray(_pixels(height, width, 3))
    exif = colour.getexif()
    exif[_ORIENTATION] = TURNED
    deep = Image.fromarray(_pixels(height, width).astype(np.uint16) * 257)
    alpha = Image.fromarray(_pixels(height, width, 4))
    frames = [Image.fromarray(_pixels(height, width)) for _ in range(3)]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 10}
    return {
        "colour.png": _saved(colour, "PNG"),
        "palette.png": _saved(colour.convert("P"), "PNG"),
        "alpha.png": _saved(alpha, "PNG"),
        "deep.png": _saved(deep, "PNG"),
        "line.png": _saved(Image.new("1", (1, 1)), "PNG"),
        "colour.jpg": _saved(colour, "JPEG"),
        "turned.jpg": _saved(colour, "JPEG", exif=exif),
        "progressive.jpg": _saved(colour, "JPEG", progressive=True),
        "cmyk.jpg": _saved(colour.convert("CMYK"), "JPEG"),
        "grey.jpg": _saved(colour.convert("L"), "JPEG"),
        "colour.tiff": _saved(colour, "TIFF", compression="tiff_lzw"),
        "deep.tiff": _saved(deep, "TIFF"),
        "moving.gif": _saved(frames[0], "GIF", **moving),
        "moving.webp": _saved(colour, "WEBP", save_all=True, append_images=[colour]),
        "colour.bmp": _saved(colour, "BMP"),
        "colour.ppm": _saved(colour, "PPM"),
    }


IMAGES = _images()
"""File name -> a sound image of 60x40 pixels, and one of a single pixel."""


def _chunk(kind: bytes, content: bytes) -> bytes:
    body = kind + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def declared_png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A grey PNG that says to be of this size, whatever is in it."""
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = _chunk(b"IHDR", head), _chunk(b"IDAT", zlib.compress(rows, 9)), _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def _with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG whose header says another size."""
    start = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:start] + struct.pack(">HH", height, width) + jpeg[start + 4 :]


def bombs() -> Iterator[bytes]:
    """Small files of which a decoder may make gigabytes, and files that are no images."""
    side = 20_000
    yield declared_png(side, side)
    yield declared_png(side, side, bytes((side + 1) * side))
    yield declared_png(2**31 - 1, 2**31 - 1)
    yield declared_png(0, 0)
    yield declared_png(1, 2_000_000, bytes(4_000_000))
    yield declared_png(2_000_000, 1, bytes(2_000_001))
    yield _with_size(IMAGES["grey.jpg"], 65_500, 65_500)
    yield _with_size(IMAGES["colour.jpg"], side, side)
    yield _with_size(IMAGES["colour.jpg"], 0, 0)
    # Text that unpacks to 100 MB.
    texts = PngImagePlugin.PngInfo()
    texts.add_text("comment", "a" * (64 << 20), zip=True)
    yield _saved(Image.new("L", (8, 8)), "PNG", pnginfo=texts)
    for numbers in (np.float32, np.int32):
        yield _saved(Image.fromarray(np.ones((4, 4), numbers)), "TIFF")
    yield b"P6 20000 20000 255\n"
    yield b"P6 99999999999 1 255\n"
    yield b"BM" + bytes(52)
    yield b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + b"\x80\0\0" + bytes(20)
    yield b"II*\0" + struct.pack("<IH", 8, 65_535) + bytes(100)
    yield b'<svg xmlns="http://www.w3.org/2000/svg" width="99999" height="99999"/>'
    yield b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20000 20000\n(/etc/passwd) (r) file\n"
