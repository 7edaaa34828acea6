"""Images in tar shards are those of the folder that was packed, wherever the shards lie."""

import io
import os
import shutil
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.spec import AbstractFileSystem
from PIL import Image

from groundwork.dataset.images import OPENERS, CorruptImageError, load_image, resolve_image
from groundwork.files import shards
from groundwork.files.places import Unreachable, folder_of
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
    with pytest.raises(ValueError, match=r"list\.json:3: image '\.\./plain\.jpg' leads out"):
        resolve_image(packed, "../plain.jpg", "list.json:3")
    elsewhere = folder / "palette.gif"
    assert resolve_image(packed, str(elsewhere), allow_outside=True) == elsewhere
    for name in ("plain.jpg", "notes.txt", ""):
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
    other = folder.with_name("others")
    save(other / "1.png", pixels(SIDE, SIDE, 3).astype(np.uint8))
    for source, megabytes in ((folder, 500), (other, 0.004)):
        with pytest.raises(FileExistsError, match=r"tar has not the images .* empty its folder"):
            tool.pack(source, out, megabytes)
    swapped = (folder / "palette.gif").read_bytes()[::-1]
    (folder / "palette.gif").write_bytes(swapped)
    with pytest.raises(FileExistsError, match="has not the images that it would have"):
        tool.pack(folder, out, megabytes=0.004)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole, "nothing is lost"
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
        with pytest.raises(ValueError, match=r"is not where its index says.*make the index again"):
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
    content = shard.read_bytes()
    shard.write_bytes(content + bytes(512))
    with pytest.raises(ValueError, match=r"is not of these files, 00000\.tar is another one"):
        shards_at(packed)
    shard.write_bytes(content)
    made(tmp_path / "shards" / "new.tar", ("new.jpg", b"new"))
    assert resolve_image(packed, "new.jpg").read() == b"new", "what the index does not know yet"
    table = pq.read_table(index)
    for change in (
        table.drop_columns("start"),
        table.replace_schema_metadata({b"groundwork.shards": b"[]"}),
        table.set_column(2, "start", pa.array([None] * len(table), pa.int64())),
        table.set_column(2, "start", pa.array(["0"] * len(table))),
        *(
            table.set_column(2, "start", pa.array([n] * len(table), pa.int64()))
            for n in (-1, 1 << 60)
        ),
    ):
        shards_at.cache_clear()
        pq.write_table(change, index)
        with pytest.raises(ValueError, match=r"index\.parquet is damaged.*make it again"):
            shards_at(packed)


def test_a_shard_of_the_same_size_in_another_order_is_noticed(tmp_path):
    members = [("a.jpg", b"a" * 600), ("b.jpg", b"b" * 600)]
    made(tmp_path / "0.tar", *members)
    root = str(tmp_path / "0.tar")
    tool.main(["index", root])
    found = resolve_image(root, "a.jpg")
    made(tmp_path / "0.tar", *reversed(members))
    with pytest.raises(ValueError, match=r"a\.jpg is not where its index says"):
        found.read()


def test_one_index_of_shards_in_several_folders(tmp_path):
    for name in ("coco", "vg"):
        (tmp_path / name).mkdir()
        made(tmp_path / name / "00000.tar", (f"{name}.jpg", name.encode()))
    root = f"{tmp_path}/*/*.tar"
    assert tool.main(["index", root]) == f"{tmp_path}/{INDEX}"
    for name in ("coco", "vg"):
        assert resolve_image(root, f"{name}.jpg").read() == name.encode()


def test_braces_name_every_shard_and_each_must_be_there(tmp_path):
    for number in range(12):
        member = f"{number}.txt", str(number).encode()
        made(tmp_path / "abc"[number % 3] / f"x-{number:03}.tar", member)
    root = f"{tmp_path}/{{a,c}}/x-*.tar"
    found = shards_at(root)
    assert [n for n in range(12) if found.find(f"{n}.txt")] == [0, 2, 3, 5, 6, 8, 9, 11]
    assert Path(tool.write_index(root, shards.scan(root))) == tmp_path / INDEX
    shards_at.cache_clear()
    assert resolve_image(root, "11.txt").read() == b"11"
    root = f"{tmp_path}/b/x-{{001..010..3}}.tar"
    assert len(shards_at(root)) == 4 and resolve_image(root, "7.txt").read() == b"7"
    with pytest.raises(FileNotFoundError, match=r"x-013\.tar, which .* names, does not exist"):
        shards_at(f"{tmp_path}/b/x-{{001..013..3}}.tar")
    with pytest.raises(ValueError, match=r"x-\{001\.tar: .*close the braces"):
        shards_at(f"{tmp_path}/b/x-{{001.tar")
    with pytest.raises(FileNotFoundError, match=r"d/\*\.tar, which .* names, does not exist"):
        shards_at(f"{tmp_path}/{{a,d}}/*.tar")
    assert shards.is_shards("s3://bucket/{000.tar,001.tar}")
    made(tmp_path / "lit{p,q}" / "0.tar", ("0.txt", b""))
    assert len(shards_at(f"{tmp_path}/lit{{p,q}}/*.tar")) == 1, "a folder of that name"
    web = fsspec.filesystem("memory")
    assert folder_of(web, "https://host/{a,b}/x/{0..3}.tar") == "https://host"
    made(tmp_path / "own {0..3}.tar", ("own.txt", b"own"))
    assert resolve_image(str(tmp_path / "own {0..3}.tar"), "own.txt").read() == b"own"


class Busy(AbstractFileSystem):
    """A server that lists nothing, has 0.tar, does not answer for 1.tar and has no other."""

    protocol = "busy"

    def info(self, path, **_):
        if path == "0.tar":
            return {"name": path, "type": "file", "size": 1024}
        raise ConnectionResetError("gone") if path == "1.tar" else FileNotFoundError(path)


def test_a_server_that_does_not_answer_is_not_taken_for_a_shard_that_is_missing():
    fsspec.register_implementation("busy", Busy, clobber=True)
    with pytest.raises(Unreachable, match=r"busy://\{0\.\.1\}\.tar cannot be read now \(gone\)"):
        shards_at("busy://{0..1}.tar")
    with pytest.raises(FileNotFoundError, match=r"2\.tar, which .* names, does not exist"):
        shards_at("busy://{0,2}.tar")


def made(path, *members):
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def test_shards_of_others_are_read_without_an_index(tmp_path):
    made(tmp_path / "a.tar", ("./x/1.jpg", b"one"), ("x/1.json", b"{}"), ("../../up.jpg", b"up"))
    root = str(tmp_path / "a.tar")
    assert resolve_image(root, "x/1.jpg").read() == b"one"
    made(tmp_path / "b.tar", ("x/1.jpg", b"two"))
    with pytest.raises(ValueError, match=r"x/1\.jpg is in .*b\.tar and in .*a\.tar"):
        shards_at(f"{tmp_path}/*.tar")


def test_links_in_shards_stand_for_files(tmp_path):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "a.jpg").write_bytes(b"one")
    (source / "sub" / "hard.jpg").hardlink_to(source / "a.jpg")
    (source / "sub" / "soft.jpg").symlink_to("../a.jpg")
    (source / "sub" / "twice.jpg").symlink_to("soft.jpg")
    (source / "gone.jpg").symlink_to("none.jpg")
    (source / "round.jpg").symlink_to("round.jpg")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(source, ".")
    root = str(tmp_path / "a.tar")
    names = ("a.jpg", "sub/hard.jpg", "sub/soft.jpg", "sub/twice.jpg")
    assert {resolve_image(root, name).read() for name in names} == {b"one"}
    assert len(shards_at(root)) == 4


def test_links_to_folders_are_packed_and_what_is_no_file_is_not(tmp_path):
    elsewhere, folder = tmp_path / "disk", tmp_path / "images"
    save(elsewhere / "a.png", pixels(SIDE, SIDE, 3).astype(np.uint8))
    (folder / "folder.jpg").mkdir(parents=True)
    (folder / "train2014").symlink_to(elsewhere)
    (folder / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe.jpg")
    out = tmp_path / "out [1]"
    tool.main(["pack", str(folder), str(out)])
    root = f"{tmp_path}/out [[]1]/*.tar"
    assert len(shards_at(root)) == 1
    assert resolve_image(root, "train2014/a.png").read() == (elsewhere / "a.png").read_bytes()
    with pytest.raises(ValueError, match="packed on this machine; copy them"):
        tool.pack(folder, Path("s3://bucket/x"))


def test_what_is_no_whole_tar_file_is_named(tmp_path):
    made(tmp_path / "a.tar", ("1.jpg", bytes(1000)), ("2.jpg", bytes(1000)))
    content = (tmp_path / "a.tar").read_bytes()
    for length in (100, 512, 1000, 1536, 2048, 2100, 3000):
        (tmp_path / "cut.tar").write_bytes(content[:length])
        with pytest.raises(ValueError, match=r"cut\.tar is cut or no tar file"):
            list(shards.scan(str(tmp_path / "cut.tar")))
    damaged = bytearray(content)
    damaged[1536:1552] = b"x" * 16  # the second header
    for bad in (bytes(damaged), content + content):
        (tmp_path / "cut.tar").write_bytes(bad)
        with pytest.raises(ValueError, match=r"cut\.tar is damaged, or several tar files in one"):
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
