"""Images in tar shards are those of the folder that was packed, wherever the shards lie."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pytest
from PIL import Image

from groundwork.dataset.images import OPENERS, CorruptImageError, load_image, resolve_image
from groundwork.files import shards
from groundwork.files.shards import INDEX, shards_at
from groundwork.tools import shards as tool

SIDE = 40


@pytest.fixture(autouse=True)
def fresh():
    shards_at.cache_clear()


def pixels(*shape, seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape)


def save(path, array, *, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(array)
    (image.convert(mode) if mode else image).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Images of many kinds, in folders."""
    root, colours = tmp_path / "images", pixels(SIDE, SIDE + 10, 3).astype(np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    save(root / "train2014" / "plain.jpg", colours)
    save(root / "train2014" / "turned.jpg", colours, exif=turned)
    save(root / "VG_100K" / "cmyk.jpg", colours, mode="CMYK")
    save(root / "VG_100K" / "grey.png", colours[..., 0])
    save(root / "palette.gif", colours, mode="P")
    save(root / "deep.png", pixels(SIDE, SIDE, high=1 << 16).astype(np.uint16))
    save(root / "two.tif", colours, save_all=True, append_images=[Image.fromarray(colours[::-1])])
    save(root / "cut.jpg", colours)
    content = (root / "cut.jpg").read_bytes()
    (root / "cut.jpg").write_bytes(content[: len(content) // 2])
    (root / "empty.jpg").write_bytes(b"")
    (root / "notes.txt").write_text("no image")
    return root


@pytest.fixture
def packed(folder, tmp_path):
    tool.pack(folder, tmp_path / "shards", megabytes=0.004)
    tool.main(["index", f"{tmp_path}/shards/*.tar"])
    return f"{tmp_path}/shards/*.tar"


def names(folder):
    return [str(p.relative_to(folder)) for p in sorted(folder.rglob("*.*")) if p.suffix != ".txt"]


def outcome(root, name, opener):
    try:
        return load_image(resolve_image(str(root), name), opener=opener)
    except CorruptImageError as error:
        return str(error.__cause__).replace(str(root), "")


@pytest.mark.parametrize("opener", OPENERS)
def test_every_opener_finds_in_shards_what_it_finds_in_files(folder, packed, opener):
    assert len(os.listdir(os.path.dirname(packed))) > 4, "several shards"
    for name in names(folder):
        there, expected = outcome(packed, name, opener), outcome(folder, name, opener)
        assert type(there) is type(expected), name
        if isinstance(expected, np.ndarray):
            np.testing.assert_array_equal(there, expected, err_msg=name)


def test_names_are_looked_for_as_in_a_folder(folder, packed):
    found = resolve_image(packed, "/their/machine/coco/train2014/plain.jpg")
    assert str(found) == f"{packed}/train2014/plain.jpg"
    assert found == resolve_image(packed, str(found)), "what a result holds is found again"
    assert found == resolve_image(packed, "train2014\\plain.jpg")
    for name in ("plain.jpg", "../plain.jpg", "notes.txt", ""):
        with pytest.raises(FileNotFoundError, match=r"list\.json:3: image .* none of the shards"):
            resolve_image(packed, name, "list.json:3")
    assert found.read() == (folder / "train2014" / "plain.jpg").read_bytes()


def test_packing_goes_on_where_it_was_ended_and_gives_the_same_files(folder, packed, tmp_path):
    out = Path(packed).parent
    whole = {path.name: path.read_bytes() for path in out.iterdir()}
    first, second = out / "00000.tar", out / "00001.tar"
    (out / INDEX).unlink()
    second.write_bytes(second.read_bytes()[:700])
    (out / ".00002.tar.x.tmp").write_bytes(b"half")
    kept = first.stat().st_mtime_ns
    tool.main(["pack", str(folder), str(out), "--megabytes", "0.004"])
    assert first.stat().st_mtime_ns == kept
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
    with pytest.raises(FileExistsError, match="is no shard of"):
        tool.pack(folder, out, megabytes=500)
    with pytest.raises(FileNotFoundError, match="holds no image"):
        tool.pack(out, tmp_path / "other")
    with pytest.raises(ValueError, match="above 0"):
        tool.pack(folder, tmp_path / "other", megabytes=0)


def test_shards_of_another_machine_need_their_index(folder, packed):
    store, root = fsspec.filesystem("memory"), "memory://bucket/*.tar"
    try:
        store.put(f"{Path(packed).parent}/", "/bucket/", recursive=True)
        for name in names(folder)[:2]:
            assert resolve_image(root, name).read() == (folder / name).read_bytes()
        store.rm(f"/bucket/{INDEX}")
        shards_at.cache_clear()
        with pytest.raises(ValueError, match=r"has no index.*tools\.shards index 'memory:"):
            resolve_image(root, "palette.gif")
        tool.main(["index", root])
        assert resolve_image(root, "palette.gif").read() == (folder / "palette.gif").read_bytes()
        store.pipe_file("/bucket/00000.tar", b"")
        with pytest.raises(ValueError, match="0 bytes came where .* were asked for"):
            resolve_image(root, names(folder)[0]).read()
    finally:
        store.rm("/bucket", recursive=True)


def test_shards_that_are_not_those_of_their_index_are_refused(packed, tmp_path):
    index, shard = tmp_path / "shards" / INDEX, tmp_path / "shards" / "00000.tar"
    whole = index.read_bytes()
    index.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"index\.parquet is damaged, .* make it again"):
        shards_at(packed)
    index.write_bytes(whole)
    with shard.open("ab") as file:
        file.write(b"\0" * 512)
    with pytest.raises(ValueError, match=r"is not of these files, 00000\.tar is another one"):
        shards_at(packed)


def made(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def test_shards_of_others_are_read_without_an_index(tmp_path):
    made(tmp_path / "a.tar", ("./x/1.jpg", b"one"), ("x/1.json", b"{}"), ("../../up.jpg", b"up"))
    root = str(tmp_path / "a.tar")
    assert resolve_image(root, "x/1.jpg").read() == b"one"
    assert resolve_image(root, "../../up.jpg").read() == b"up", "a name, which leads nowhere"
    made(tmp_path / "b.tar", ("x/1.jpg", b"two"))
    with pytest.raises(ValueError, match=r"x/1\.jpg is in .*b\.tar and in .*a\.tar"):
        shards_at(f"{tmp_path}/*.tar")


def test_what_is_no_whole_tar_file_is_named(tmp_path):
    made(tmp_path / "a.tar", ("1.jpg", bytes(1000)), ("2.jpg", bytes(1000)))
    content = (tmp_path / "a.tar").read_bytes()
    for length in (100, 512, 1000, 1536, 2048, 2100, 3000):
        (tmp_path / "cut.tar").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.tar is cut or no tar file"):
            list(shards.scan(str(tmp_path / "cut.tar")))
    (tmp_path / "text.tar").write_text("no tar" * 500)
    with pytest.raises(ValueError, match=r"text\.tar is cut or no tar file"):
        shards_at(str(tmp_path / "text.tar"))
    with pytest.raises(FileNotFoundError, match="there is no such shard"):
        shards_at(str(tmp_path / "none-*.tar"))
    with pytest.raises(ValueError, match=r"compressed shards .* unpack"):
        shards_at(str(tmp_path / "a.tar.gz"))
    shutil.copytree(tmp_path, tmp_path / "folder.tar")
    assert not shards.is_shards(str(tmp_path / "folder.tar")), "a folder of that name"
