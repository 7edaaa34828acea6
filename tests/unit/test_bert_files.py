"""Zip files of BERTs: anybody's, so that neither size nor names are trusted."""

import zipfile
from pathlib import Path

import pytest

from groundwork.models.common import bert_files
from groundwork.models.common.bert_files import read_bert, unpack
from groundwork.models.common.checkpoint import CheckpointError

SIZE = 200_000


@pytest.fixture
def archive(tmp_path) -> Path:
    """Two files of zeros, which are small as long as they are packed."""
    path = tmp_path / "bert.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", bytes(SIZE))
        file.writestr("more/weights.bin", bytes(SIZE))
    assert path.stat().st_size < SIZE / 100
    return path


def unpacked(folder: Path) -> dict[str, int]:
    return {
        file.relative_to(folder).as_posix(): file.stat().st_size
        for file in folder.rglob("*") if file.is_file()
    }  # fmt: skip


def test_what_fits_is_unpacked(archive, tmp_path):
    unpack(archive, tmp_path / "out", 2 * SIZE)
    assert unpacked(tmp_path / "out") == {"config.json": SIZE, "more/weights.bin": SIZE}


def test_all_files_together_are_bounded_before_anything_is_written(archive, tmp_path):
    with pytest.raises(CheckpointError, match=r"unpacks to 400,000 bytes.* at most 399,999"):
        unpack(archive, tmp_path / "out", 2 * SIZE - 1)
    assert not (tmp_path / "out").exists()


def test_a_file_that_declares_less_than_it_holds_is_not_read_further(archive, tmp_path):
    declared = 1000
    content = archive.read_bytes()
    # Size before packing: in the headers of the files, and in the directory at the end.
    lying = content.replace(SIZE.to_bytes(4, "little"), declared.to_bytes(4, "little"))
    assert lying != content and len(lying) == len(content)
    archive.write_bytes(lying)
    with pytest.raises(CheckpointError, match="bert.zip: damaged"):
        unpack(archive, tmp_path / "out", 2 * declared)
    assert max(unpacked(tmp_path / "out").values()) <= declared


def test_names_stay_below_the_folder(tmp_path):
    path = tmp_path / "bert.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("../../outside.txt", b"x")
        file.writestr("/absolute.txt", b"x")
    unpack(path, tmp_path / "a" / "b")
    assert set(unpacked(tmp_path / "a" / "b")) == {"outside.txt", "absolute.txt"}
    assert set(unpacked(tmp_path)) == {"bert.zip", "a/b/outside.txt", "a/b/absolute.txt"}


def test_a_member_without_a_name_is_damage(tmp_path):
    path = tmp_path / "bert.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x", b"text")
        file.filelist[0].filename = ""
    with pytest.raises(CheckpointError, match=r"bert\.zip: damaged"):
        unpack(path, tmp_path / "out")


def test_a_bert_that_is_too_large_is_refused_in_one_sentence(archive, monkeypatch):
    monkeypatch.setattr(bert_files.unpack, "__defaults__", (SIZE,))
    with pytest.raises(CheckpointError) as caught:
        read_bert(str(archive))
    assert "unpack it yourself if you trust it" in str(caught.value)
    assert "hub" not in str(caught.value)
