"""predict.py and pseudo_label.py over many images: the same rows from any source, in blocks."""

import errno
import io
import json
import os
import tarfile
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from fsspec import AbstractFileSystem

import predict
import pseudo_label
from groundwork.dataset.formats import labels
from groundwork.files.places import Unreachable, reaching
from groundwork.jobs import predict_many
from groundwork.jobs.bulk import store as stores
from groundwork.jobs.bulk.source import Asked, blocks_of, read_block, source_of
from groundwork.jobs.bulk.work import _Look
from groundwork.jobs.systems import SHIPPED
from tests.helpers.own_checkpoints import write_checkpoint
from tests.helpers.script_runs import CONFIGS, error_of

pytestmark = pytest.mark.usefixtures("embedded")
PHRASES = ["the red circle", "the blue square"]
SYSTEM = ("--checkpoint", str(SHIPPED), "--device", "cpu")


@pytest.fixture(scope="module")
def photos(workplace, tmp_path_factory) -> Path:
    """Five images in two folders."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "more").mkdir()
    found = sorted((workplace / "data" / "embedded" / "images").rglob("*.jpg"))
    for number, file in enumerate(found[:5]):
        name = f"more/{number}.jpg" if number % 2 else f"{number}.jpg"
        (folder / name).write_bytes(file.read_bytes())
    return folder


@pytest.fixture(scope="module")
def rows(photos, tmp_path_factory) -> list[dict]:
    """Of predictions.jsonl, about the photos."""
    out = tmp_path_factory.mktemp("rows") / "out"
    predict.main([str(photos), *PHRASES, *SYSTEM, "--out", str(out)])
    return [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(autouse=True)
def memory():
    """The file system of memory:// URLs, which the process has for itself, empty."""
    files = fsspec.filesystem("memory")
    yield files
    files.rm("/", recursive=True)


def run(source: object, out: object, *more: object, phrases=PHRASES, block=2) -> dict:
    return predict.main(
        [str(source), *phrases, *SYSTEM, "--parquet", str(out), "--block", str(block),
         *map(str, more)]
    )  # fmt: skip


def rows_of(out: Path) -> list[dict]:
    """As predictions.jsonl has them."""
    found = ds.dataset(out).to_table().to_pylist()
    return [{**row, "confidence": dict(row["confidence"])} for row in found]


def unnamed(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key != "image"} for row in rows]


def samples(photos: Path, rows: list[dict]) -> list[tuple[str, bytes]]:
    """(name, content) of the photos in the order of the rows."""
    names = dict.fromkeys(row["image"] for row in rows)
    return [(name, (photos / name).read_bytes()) for name in names]


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as shard:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))


# --- sources --------------------------------------------------------------------------------------


def test_a_folder_gives_the_rows_of_predictions_jsonl_in_blocks(photos, rows, tmp_path):
    out = tmp_path / "out"
    assert run(photos, out) == {"out": str(out), "images": 5, "faults": []}
    assert rows_of(out) == rows
    counts = [pq.read_metadata(part).num_rows for part in sorted(out.glob("part-*"))]
    assert counts == [4, 4, 2]
    manifest = json.loads((out / "_manifest.json").read_text())
    assert (manifest["images"], manifest["rows"], manifest["blocks"]) == (5, 10, 3)
    assert manifest["asked"]["phrases"] == PHRASES


def test_a_list_at_a_url_gives_the_same_rows_at_a_url(photos, rows, memory):
    lines = []
    for number, (name, content) in enumerate(samples(photos, rows)):
        memory.pipe_file(f"/bucket/{name}", content)
        # One by its whole address, and phrases of their own.
        image = f"memory://bucket/{name}" if number == 3 else name
        own = {"phrases": PHRASES} if number % 2 else {}
        lines.append(json.dumps({"image": image, **own}) + "\n")
    memory.pipe_file("/bucket/asked.jsonl", "".join(lines).encode())
    run("memory://bucket/*.jsonl", "memory://out")
    parts = sorted(memory.glob("/out/part-*.parquet"))
    found = [row for part in parts for row in pq.read_table(memory.open(part)).to_pylist()]
    assert len(parts) == 3
    assert [row["boxes"] for row in found] == [row["boxes"] for row in rows]
    names = [row["image"].removeprefix("memory://bucket/") for row in found]
    assert names == [row["image"] for row in rows]


def test_a_table_gives_the_same_rows(photos, rows, tmp_path):
    folder = tmp_path / "tables"
    (folder / "images").mkdir(parents=True)
    files = samples(photos, rows)
    # As content, as data sets of images have it, and as paths; row groups are no blocks.
    kinds = {
        "a": [{"bytes": content, "path": name} for name, content in files[:3]],
        "b": ["images/3.jpg", "images/4.jpg"],
    }
    for number in (3, 4):
        (folder / f"images/{number}.jpg").write_bytes(files[number][1])
    for name, images in kinds.items():
        column = {"image": images, "phrases": [PHRASES] * len(images), "more": [1] * len(images)}
        pq.write_table(pa.table(column), folder / f"{name}.parquet", row_group_size=2)
    out = tmp_path / "out"
    run(folder / "*.parquet", out, phrases=(), block=1)
    assert unnamed(rows_of(out)) == unnamed(rows)
    assert [row["image"] for row in rows_of(out)[::2]] == [
        *(name for name, _ in files[:3]), "images/3.jpg", "images/4.jpg"
    ]  # fmt: skip


def test_shards_give_the_same_rows(photos, rows, tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    files = samples(photos, rows)
    texts = "\n".join(PHRASES).encode()
    for name, some in (("a.tar", files[:3]), ("b.tar", files[3:])):
        content = []
        for number, (_, image) in enumerate(some):
            note = json.dumps({"phrases": PHRASES, "licence": "own"}).encode()
            more = (f"s/{number}.json", note) if name == "a.tar" else (f"s/{number}.txt", texts)
            content += [(f"s/{number}.jpg", image), more]
        write_tar(folder / name, content)
    out = tmp_path / "out"
    run(folder, out, phrases=())
    assert unnamed(rows_of(out)) == unnamed(rows)
    assert rows_of(out)[0]["image"] == "a.tar/s/0.jpg"
    assert len(list(out.glob("part-*"))) == 2  # a shard is a block


def test_several_images_at_once_give_the_same_rows_to_rounding(photos, rows, tmp_path):
    out, asked = tmp_path / "out", photos / "asked.jsonl"
    texts = [PHRASES, PHRASES, ["???"], PHRASES, PHRASES, PHRASES]
    names = [name for name, _ in samples(photos, rows)]
    names.insert(2, names[0])
    lines = [{"image": name, "phrases": some} for name, some in zip(names, texts, strict=True)]
    asked.write_text("".join(json.dumps(line) + "\n" for line in lines))
    try:
        done = run(asked, out, "--images_at_once", "4", phrases=(), block=9)
    finally:
        asked.unlink()
    assert done["images"] == 5
    assert done["faults"] == [f"{asked}:3: phrase '???' has no word; say what is looked for"]
    for one, expected in zip(rows_of(out), rows, strict=True):
        assert (one["image"], one["phrase"]) == (expected["image"], expected["phrase"])
        assert one["score"] == pytest.approx(expected["score"], abs=1e-4)
        np.testing.assert_allclose(one["boxes"], expected["boxes"], atol=1.0)


# --- what ends, and what goes on ------------------------------------------------------------------


def test_the_same_command_goes_on_where_it_was_ended(photos, rows, tmp_path, monkeypatch):
    out, written = tmp_path / "out", []
    real = stores.Store.write

    def write(self, block, of, table, done):
        if written:
            raise KeyboardInterrupt
        written.append(block.number)
        real(self, block, of, table, done)

    with monkeypatch.context() as patch:
        patch.setattr(stores.Store, "write", write)
        with pytest.raises(KeyboardInterrupt):
            run(photos, out)
    assert [part.name for part in out.glob("part-*")] == ["part-000000-of-000003.parquet"]
    assert not (out / "_manifest.json").exists()
    first = out / "part-000000-of-000003.parquet"
    before = first.stat().st_mtime_ns
    late = photos / "late.jpg"  # what comes later is not of this call
    late.write_bytes((photos / "0.jpg").read_bytes())
    try:
        run(photos, out)
    finally:
        late.unlink()
    assert rows_of(out) == rows and first.stat().st_mtime_ns == before
    # A block that was cut is made again; one that is there is not, and no model is loaded for it.
    last = out / "part-000002-of-000003.parquet"
    last.write_bytes(last.read_bytes()[:-9])
    run(photos, out)
    assert rows_of(out) == rows
    monkeypatch.setattr(predict_many, "load_systems", lambda *_: pytest.fail("loaded"))
    assert run(photos, out)["images"] == 5


def test_another_command_is_refused(photos, tmp_path):
    out = tmp_path / "out"
    run(photos, out, phrases=PHRASES[:1], block=9)
    assert "begun with other phrases" in error_of(lambda: run(photos, out, block=9))
    assert "begun with other block" in error_of(lambda: run(photos, out, phrases=PHRASES[:1]))
    # A call of which no block came is no hindrance.
    lost = (photos, tmp_path / "lost", "--config", "no/such.yaml")
    assert "no/such.yaml" in error_of(lambda: run(*lost))
    assert run(*lost[:2], block=9)["images"] == 5
    missing = ("--checkpoint", "no.pth")
    assert "not found: no.pth" in error_of(lambda: run(photos, tmp_path / "no", *missing))
    assert not (tmp_path / "no").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").write_text("a")
    assert "is not empty" in error_of(lambda: run(photos, tmp_path / "other"))
    assert "leave --out" in error_of(lambda: run(photos, out, "--words"))


def test_what_cannot_be_used_is_named_and_left_out(photos, tmp_path):
    folder, out = tmp_path / "listed", tmp_path / "out"
    folder.mkdir()
    (folder / "a.jpg").write_bytes((photos / "0.jpg").read_bytes())
    (folder / "broken.png").write_bytes(b"no image")
    lines = [
        '{"image": "a.jpg"}', "{", '{"image": "../a.jpg"}', '{"image": "b.jpg"}',
        '{"image": "broken.png"}', '{"image": "a.jpg", "phrase": " "}', '{"image": "a.jpg"}',
    ]  # fmt: skip
    asked = folder / "asked.jsonl"
    asked.write_text("\n".join(lines) + "\n")
    done = run(asked, out, phrases=PHRASES[:1])
    assert done["images"] == len(rows_of(out)) == 2
    places = [f"{asked}:{number}" for number in range(2, 7)]
    expected = [
        "is not valid JSON", "leads out of the folder", "does not exist", "cannot be decoded",
        "has no word",
    ]  # fmt: skip
    for line, place, words in zip(done["faults"], places, expected, strict=True):
        assert place in line and words in line, line
    assert (out / "_faults.txt").read_text().splitlines() == done["faults"]
    strict = tmp_path / "strict"
    assert "is not valid JSON" in error_of(
        lambda: run(asked, strict, "--strict", phrases=PHRASES[:1])
    )
    # A shard that was cut gives what is whole.
    content = (photos / "0.jpg").read_bytes()
    shard = tmp_path / "cut.tar"
    write_tar(shard, [("0.jpg", content), ("1.jpg", content)])
    shard.write_bytes(shard.read_bytes()[: len(content) + 1500])
    (line,) = run(shard, tmp_path / "shard", phrases=PHRASES[:1])["faults"]
    assert "cut.tar is cut or no tar file" in line
    assert len(rows_of(tmp_path / "shard")) == 1


@pytest.mark.parametrize(
    ("source", "more", "expected"),
    [
        ("no", (), "no: there is no such file, folder or pattern"),
        ("*.tar", (), "there is no such file"),
        ("empty", (), "there is no such file"),
        ("notes", (), "holds no image, list (.jsonl), table (.parquet) or shard (.tar)"),
        ("mixed", (), "holds files of several kinds"),
        ("nowhere://bucket", (), "no path and no URL that fsspec knows"),
        ("mixed/a.jsonl", ("--block", "0"), "--block 0"),
        ("mixed/a.jsonl", ("--images_at_once", "0"), "--images_at_once 0"),
        ("mixed/a.jsonl", ("--ray", "--actors", "0"), "--actors 0"),
        ("mixed/a.jsonl", ("--ray", "--gpus_per_actor", "1.5"), "--gpus_per_actor 1.5"),
    ],
)
def test_what_cannot_be_begun_is_said_in_a_sentence(source, more, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "notes", "mixed"):
        Path(name).mkdir()
    for name in ("notes/a.csv", "mixed/a.jsonl", "mixed/a.tar"):
        Path(name).write_text("\n")
    assert expected in error_of(lambda: run(source, "out", *more))
    assert not Path("out").exists()


def asked_of(place: Path) -> list[Asked | str]:
    """All that a source asks, and what is said of the rest."""
    source = source_of(str(place), ("a ring",), 256)
    return [one for block in blocks_of(source) for one in read_block(source, block)]


def test_a_folder_whose_name_is_a_pattern_is_that_folder(tmp_path):
    for name in ("photos[1]", "photos1", "what?"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.jpg").touch()
    for name in ("photos[1]", "what?"):
        (one,) = asked_of(tmp_path / name)
        assert one.name == f"{name}.jpg"
    assert {one.name for one in asked_of(tmp_path / "photos?" / "*.jpg")} == {"photos1/photos1.jpg"}


def test_names_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "photos").mkdir()
    Path(os.fsdecode(os.fsencode(tmp_path / "photos") + b"/caf\xe9.jpg")).touch()
    with pytest.raises(ValueError, match=r"name .*caf\\udce9.jpg' holds"):
        asked_of(tmp_path / "photos")
    write_tar(tmp_path / "a.tar", [("caf\udce9.jpg", b""), ("b.jpg", b"")])
    said, one = asked_of(tmp_path / "a.tar")
    assert "holds '\\udce9'" in said and one.name == "a.tar/b.jpg"


def test_a_shard_that_is_cut_between_two_files_is_not_taken_for_whole(tmp_path):
    file = tmp_path / "a.tar"
    write_tar(file, [("a.jpg", b""), ("b.jpg", b"image"), ("c.jpg", b"")])
    whole = file.read_bytes()
    assert [one.name for one in asked_of(file)] == ["a.tar/a.jpg", "a.tar/b.jpg", "a.tar/c.jpg"]
    for length in (512, 1500, 1536, 1600):
        file.write_bytes(whole[:length])
        assert "is cut" in asked_of(file)[-1]


def test_a_damaged_table_is_named(tmp_path):
    file = tmp_path / "a.parquet"
    content = pa.table({"image": [bytes(99)] * 50, "phrase": ["a ring"] * 50})
    pq.write_table(content, file, compression="zstd", use_dictionary=False)
    whole = file.read_bytes()
    file.write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
    assert "a.parquet is damaged" in asked_of(file)[-1]
    file.write_bytes(whole[:-9])
    with pytest.raises(ValueError, match=r"a.parquet is cut or no Parquet file"):
        asked_of(file)


@pytest.mark.parametrize("url", ["nothing://a.jpg", "data://a.jpg"])
def test_a_url_that_cannot_be_read_is_named_with_its_place(url, tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"image": url}))
    (one,) = asked_of(tmp_path / "a.jsonl")
    look = _Look([], source_of(str(tmp_path / "a.jsonl"), ("a ring",), 1), tmp_path)
    with pytest.raises(ValueError, match=f"a.jsonl:1: image {url}"):
        look(one)


class Refused(Exception):
    """As a package of HTTP says it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class Server(AbstractFileSystem):
    """What `NUMBER.jpg` is answered with is that status."""

    protocol = "server"

    def cat_file(self, path, *_, **__):
        raise Refused(int(Path(path).stem))


def test_a_refused_image_is_left_out_and_a_server_that_is_down_ends_the_command(photos, tmp_path):
    fsspec.register_implementation("server", Server, clobber=True)
    asked, out = tmp_path / "asked.jsonl", tmp_path / "out"
    names = ["server://403.jpg", "there.jpg", "server://503.jpg"]
    (tmp_path / "there.jpg").write_bytes((photos / "0.jpg").read_bytes())
    asked.write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    message = error_of(lambda: run(asked, out, block=2))
    assert "503.jpg cannot be read now (status 503); start the same command again" in message
    names.pop()
    asked.write_text("".join(json.dumps({"image": name}) + "\n" for name in names))
    done = run(asked, tmp_path / "other")
    (fault,) = done["faults"]
    assert done["images"] == 1
    assert "asked.jsonl:1" in fault and "403.jpg is refused by its server (403)" in fault


@pytest.mark.parametrize("fault", [TypeError("a fault of the program"), AttributeError("x")])
def test_a_fault_of_the_program_is_not_called_one_of_a_server(fault):
    system = Server()
    with pytest.raises(type(fault)), reaching(system, "server://a"):
        raise fault
    for error in (ConnectionResetError("gone"), Refused(503)):
        with pytest.raises(Unreachable, match=r"server://a cannot be read now"):
            with reaching(system, "server://a"):
                raise error
    here = fsspec.filesystem("file")
    with pytest.raises(OSError, match="a bad disk"), reaching(here, "/a"):
        raise OSError(errno.EIO, "a bad disk")


def test_without_ray_the_extra_is_named(photos, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    assert "pip install -e .[ray]" in error_of(lambda: run(photos, tmp_path / "out", "--ray"))


# --- labels ---------------------------------------------------------------------------------------


def test_labels_of_a_source_are_those_that_a_student_reads(photos, workplace, tmp_path):
    teacher = write_checkpoint("simrec", workplace / "bulk" / "simrec.pth")
    asked = photos / "asked.jsonl"
    asked.write_text(
        "".join(
            json.dumps({"image": name, "phrases": PHRASES}) + "\n" for name in ("0.jpg", "2.jpg")
        )
    )
    out = tmp_path / "out"
    call = ["--config", str(CONFIGS / "tiny/simrec/refcoco+.yaml"), "--checkpoint", str(teacher),
            "--device", "cpu", "--source", str(asked), "--parquet", str(out)]  # fmt: skip
    try:
        counts = pseudo_label.main(call)
        found = [label for _, label in labels.load(out / "labels.jsonl")]
        assert counts["kept"] == len(found) > 0
        rows = ds.dataset(out, format="parquet", exclude_invalid_files=True).to_table().to_pylist()
        assert [(row["image"], row["text"]) for row in rows] == [(x.image, x.text) for x in found]
        assert all(row["objectness"] is not None for row in rows)
        assert all(len(list(one.phrases)) == 1 for one in labels.read(out / "labels.jsonl"))
        assert "--keep is of the labels of a split" in error_of(
            lambda: pseudo_label.main([*call, "--keep", "0.5"])
        )
    finally:
        asked.unlink()
