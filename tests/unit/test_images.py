"""Every system opens images as its published code did, and says which ones it cannot open."""

import time
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from groundwork.dataset import images
from groundwork.dataset.images import OPENERS, CorruptImageError, load_image

TURNED = 6  # EXIF: the stored image is shown a quarter turn clockwise


@pytest.fixture
def image():
    """(24, 36, 3) uint8, smooth, its corners different."""
    rows, columns = np.mgrid[:24, :36]
    return np.stack([rows * 10, columns * 7, rows + columns], axis=-1).astype(np.uint8)


def jpeg(path, image, orientation=None, mode="RGB"):
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(image).convert(mode).save(path, quality=95, exif=exif)
    return path


def test_the_orientation_of_exif_is_applied_where_the_system_does(tmp_path, image):
    path = jpeg(tmp_path / "turned.jpg", image, TURNED)
    assert load_image(path, opener="pillow").shape == (24, 36, 3)
    for opener in ("shown", "opencv"):
        shown = load_image(path, opener=opener)
        assert shown.shape == (36, 24, 3)
        assert np.abs(shown.astype(int) - np.rot90(image, -1)).mean() < 4


def test_decoders_agree_on_an_ordinary_image(tmp_path, image):
    path = jpeg(tmp_path / "plain.jpg", image)
    first, *others = (load_image(path, opener=name) for name in OPENERS)
    assert all(np.array_equal(first, other) for other in others)


def test_threads_that_take_truncated_files_leave_other_openers_strict(tmp_path, image, monkeypatch):
    file = jpeg(tmp_path / "a.jpg", image)
    bits, turns = images.require_bits, count(1)

    def slowly(picture):
        time.sleep(0.05 * next(turns))  # who begins first ends first, while the other is at it
        return bits(picture)

    monkeypatch.setattr(images, "require_bits", slowly)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(lambda _: load_image(file, opener="pillow"), range(2)))
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_truncated_image_is_decoded_as_far_as_it_goes_as_released_and_is_damaged_to_us(
    tmp_path,
):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = jpeg(tmp_path / "cut.jpg", noise)
    whole = load_image(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for opener in ("pillow", "opencv"):
        cut = load_image(path, opener=opener)
        assert np.array_equal(cut[:8], whole[:8]) and not np.array_equal(cut, whole)
    with pytest.raises(CorruptImageError, match="truncated"):
        load_image(path, opener="shown")
    with pytest.raises(CorruptImageError, match="truncated"):
        load_image(path, opener="shown")  # what "pillow" allows ends with it


def test_opencv_converts_cmyk_by_its_own_rule(tmp_path, image):
    path = jpeg(tmp_path / "cmyk.jpg", image, mode="CMYK")
    with_opencv = cv2.imread(str(path))[:, :, ::-1]
    assert np.array_equal(load_image(path, opener="opencv"), with_opencv)
    assert load_image(path, opener="pillow").shape == (24, 36, 3)


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "LA"])
def test_grey_palette_and_alpha_become_rgb(opener, mode, tmp_path, image):
    path = tmp_path / "picture.png"
    Image.fromarray(image).convert(mode).save(path)
    assert load_image(path, opener=opener).shape == (24, 36, 3)


@pytest.mark.parametrize("opener", OPENERS)
def test_sixteen_bits_become_eight(opener, tmp_path):
    path = tmp_path / "deep.png"
    cv2.imwrite(str(path), np.full((4, 5), 200 << 8, dtype=np.uint16))
    assert np.array_equal(load_image(path, opener=opener), np.full((4, 5, 3), 200))


@pytest.mark.parametrize("opener", ["shown", "pillow"])
def test_pixels_of_floats_are_refused_by_name(opener, tmp_path):
    path = tmp_path / "float.tiff"
    Image.fromarray(np.full((4, 5), 0.5, dtype=np.float32)).save(path)
    with pytest.raises(CorruptImageError, match=r"float\.tiff.*mode F; save it as 8 bits"):
        load_image(path, opener=opener)


@pytest.mark.parametrize("opener", OPENERS)
def test_what_is_no_image_is_named(opener, tmp_path):
    path = tmp_path / "page.jpg"
    path.write_text("<html>")
    with pytest.raises(CorruptImageError, match=r"list\.json\[3\]: image .*page\.jpg"):
        load_image(path, "list.json[3]", opener)


def test_an_unknown_opener_is_named(tmp_path):
    with pytest.raises(ValueError, match="opener 'gimp' is unknown; legal are shown, pillow"):
        load_image(tmp_path / "x.jpg", opener="gimp")
