"""Files that would run code, fill the disk or write elsewhere if they were believed."""

import io
import os
import pickle
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from groundwork import geometry
from groundwork.dataset.formats import plain_pickle, refer
from groundwork.dataset.images import CorruptImageError, load_image
from groundwork.files import foreign
from groundwork.jobs import plain_message
from groundwork.models.common.bert_files import unpack
from groundwork.models.common.checkpoint import CheckpointError, read_checkpoint
from groundwork.models.common.word_vectors import word_matrix
from groundwork.settings import load_config
from groundwork.tools import prepare_flickr30k
from tests.fuzz.corpus import declared_png
from tests.helpers.script_runs import CONFIGS

ROOT = Path(__file__).parents[2]


class Running:
    """Pickled, it makes a folder when it is loaded by somebody who believes it."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# --- pickles --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("read", [refer.load_refs, plain_pickle.read, read_checkpoint])
def test_no_pickle_runs_code_whatever_reads_it(read, protocol, tmp_path):
    file, trace = tmp_path / "a.pth", tmp_path / "trace"
    file.write_bytes(pickle.dumps([Running(trace)], protocol=protocol))
    with pytest.raises(ValueError, match=r"a\.pth"):
        read(file)
    assert not trace.exists()
    pickle.loads(file.read_bytes())
    assert trace.exists(), "it would have, elsewhere"


@pytest.mark.parametrize("new", [True, False])
@pytest.mark.parametrize("read", [plain_pickle.read, read_checkpoint])
def test_no_file_of_torch_runs_code(read, new, tmp_path):
    file, trace = tmp_path / "a.pth", tmp_path / "trace"
    content = {"model": {"a": torch.zeros(2)}, "more": Running(trace)}
    torch.save(content, file, _use_new_zipfile_serialization=new)
    with pytest.raises(ValueError, match=r"a\.pth"):
        read(file)
    assert not trace.exists()


def test_arrays_of_objects_are_not_read(tmp_path):
    file, trace = tmp_path / "mask.npy", tmp_path / "trace"
    np.save(file, np.array([Running(trace)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"mask\.npy is no array of numpy"):
        geometry.decode_mask("mask.npy", (1, 1), tmp_path)
    with pytest.raises(ValueError, match=r"mask\.npy is no array of numpy"):
        word_matrix(["a"], file, 1)
    assert not trace.exists()


# --- configurations -------------------------------------------------------------------------------


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.mkdir", "!!python/name:os.system", "!x"])
def test_tags_of_yaml_make_no_objects(tag, tmp_path):
    file, trace = tmp_path / "own.yaml", tmp_path / "trace"
    file.write_text(f"base: {CONFIGS / 'tiny/Pretrain_vg.yaml'}\ndata: {tag} [{trace}]\n")
    with pytest.raises(ValueError, match=r"own\.yaml"):
        load_config(file)
    assert not trace.exists()


def test_a_billion_laughs_of_yaml_take_no_memory(tmp_path):
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    file = tmp_path / "own.yaml"
    file.write_text("\n".join(rows) + "\n")
    with pytest.raises(ValueError, match=r"own\.yaml: .*aliases multiply"):
        load_config(file)
    file.write_text("a: &a [*a]\n")
    with pytest.raises(ValueError, match=r"own\.yaml: .*an alias stands in"):
        load_config(file)


@pytest.mark.parametrize("brackets", ["[", "{a: "])
def test_brackets_without_end_are_refused_before_they_are_parsed(brackets, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("a: " + brackets * 100_000)
    began = time.process_time()
    with pytest.raises(ValueError, match=r"own\.yaml: .*more than 100 brackets are open at once"):
        load_config(file)
    assert time.process_time() - began < 1


def test_a_base_that_builds_on_itself_is_named(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match=r"a\.yaml: its base builds on itself"):
        load_config(tmp_path / "a.yaml")


# --- archives -------------------------------------------------------------------------------------

XML = b"<annotation><size><width>8</width><height>9</height></size></annotation>"


def archive_of(folder: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    (folder / "raw").mkdir()
    with tarfile.open(folder / "raw" / "annotations.tar.xz", "w:xz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return folder / "raw"


def test_names_in_a_tar_lead_nowhere_as_nothing_is_unpacked(tmp_path):
    link = tarfile.TarInfo("Sentences/1.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    members = [
        (tarfile.TarInfo("../../Annotations/1.xml"), XML),
        (tarfile.TarInfo(f"{tmp_path}/out/Annotations/1.xml"), XML),
        (link, b""),
    ]
    raw = archive_of(tmp_path, members)
    with pytest.raises(FileNotFoundError, match="lack annotations, first 1"):
        prepare_flickr30k.load_raw(raw, ["1"])
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["annotations.tar.xz", "raw"]


def test_a_file_of_gigabytes_in_a_tar_is_refused_by_its_stated_size(tmp_path):
    raw = archive_of(tmp_path, [(tarfile.TarInfo("Annotations/1.xml"), bytes(2 << 20))])
    with pytest.raises(ValueError, match=r"annotations\.tar\.xz: Annotations/1\.xml has 2,097,152"):
        prepare_flickr30k.load_raw(raw, ["1"])


def test_a_damaged_tar_is_named(tmp_path):
    raw = archive_of(tmp_path, [(tarfile.TarInfo("Annotations/1.xml"), XML)])
    file = raw / "annotations.tar.xz"
    whole = file.read_bytes()
    file.write_bytes(whole[:40] + bytes(20) + whole[60:])
    with pytest.raises(ValueError, match=r"annotations\.tar\.xz is damaged"):
        prepare_flickr30k.load_raw(raw, ["1"])


@pytest.mark.parametrize("name", ["../evil.txt", "/evil.txt", "a/../../evil.txt"])
def test_names_in_a_zip_stay_below_the_folder_it_is_unpacked_to(name, tmp_path):
    file, out = tmp_path / "bert.zip", tmp_path / "deep" / "out"
    out.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, "x")
    unpack(file, out)
    assert [path.name for path in tmp_path.rglob("evil.txt")] == ["evil.txt"]
    assert next(out.rglob("evil.txt"))


def test_a_zip_bomb_is_refused_by_what_it_declares(tmp_path):
    file, out = tmp_path / "bert.zip", tmp_path / "out"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", bytes(1 << 20))
    with pytest.raises(CheckpointError, match=r"unpacks to 1,048,576 bytes"):
        unpack(file, out, most=1000)
    assert not out.exists()


# --- images and texts -----------------------------------------------------------------------------


@pytest.mark.parametrize("opener", ["shown", "pillow", "opencv"])
def test_an_image_of_gigabytes_is_refused_by_its_header(opener, tmp_path):
    side = 20_000
    file = tmp_path / "bomb.png"
    file.write_bytes(declared_png(side, side, bytes((side + 1) * side)))
    assert file.stat().st_size < 1 << 20
    with pytest.raises(CorruptImageError, match=r"bomb\.png cannot be decoded .*pixels"):
        load_image(file, opener=opener)


def test_what_a_file_says_cannot_steer_the_terminal():
    title = "\x1b]0;owned\x07\x1b[2J\u202egpj.exe"
    message = plain_message(ValueError(f"a.json[0]: image {title} is lost\nerror: all is well"))
    assert message.isprintable() and "\n" not in message
    assert "a.json[0]: image \\x1b]0;owned" in message and "is lost error: all" in message
    long = foreign.one_line("a" * 5000 + "z")
    assert len(long) < 1100 and long.startswith("aaa") and long.endswith("az")


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "a\0b", "\ud800.jpg"])
def test_names_that_no_file_can_have_are_said_to_be_such(name, tmp_path):
    with pytest.raises(ValueError, match="is no name that a file can have"):
        geometry.decode_mask(f"{name}.npy", (5, 5), tmp_path)


# --- what SECURITY.md says ------------------------------------------------------------------------


def test_every_test_that_the_security_notes_name_is_there():
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    named = [line.split("`")[1::2] for line in text.splitlines() if line.startswith("| ")]
    tests = [name for row in named for name in row if name.startswith("tests/")]
    assert len(tests) > 15
    for name in tests:
        file, _, test = name.partition("::")
        source = (ROOT / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, name
