"""BERTs from the hub, a folder in its layout, or a zip file of such a folder."""

import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor
from transformers import AutoModelForMaskedLM

from groundwork.files.packaged import packaged_file
from groundwork.models.common.checkpoint import CheckpointError, first_line

MOST_BYTES = 8 << 30
"""A large BERT as weights of several libraries together has less than this."""


@contextmanager
def hub_folder(source: str) -> Iterator[str]:
    """What transformers can read a network from: `source` itself, or the folder that the zip file
    of that name holds, for as long as the context lasts.

    Args:
        source: a hub name, a folder, a zip file; "package:NAME/FILE" is in an installed package.

    Raises:
        FileNotFoundError: see `packaged_file`.
        CheckpointError: see `unpack`.
    """
    path = packaged_file(source)
    if not zipfile.is_zipfile(path):
        yield str(path) if path.exists() else source
        return
    with tempfile.TemporaryDirectory() as folder:
        unpack(path, Path(folder))
        yield folder


DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError)


def unpack(path: Path, folder: Path, most: int = MOST_BYTES) -> None:
    """Everything in a zip file, which may be anybody's, into a folder.

    What its directory declares is added up before anything is written, and no file is read further
    than declared, so that a small file cannot fill the disk.

    Args:
        most: bytes that all its files may have together.

    Raises:
        CheckpointError: they have more, or the file is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            declared = sum(member.file_size for member in archive.infolist())
            if declared > most:
                raise CheckpointError(
                    f"{path} unpacks to {declared:,} bytes, and a BERT has at most {most:,};"
                    " unpack it yourself if you trust it, and give the folder"
                )
            # Reads as much as declared, and compares the checksum; names stay below the folder.
            archive.extractall(folder)
    except CheckpointError:
        raise
    # An unknown way of packing and a password are a NotImplementedError and a RuntimeError, a
    # member without a name is an IndexError.
    except (*DAMAGED, RuntimeError, IndexError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); copy or download it again") from error


def read_bert(source: str) -> dict[str, Tensor]:
    """The weights of a BERT with its masked-language head, or without where it has none.

    Args:
        source: see `hub_folder`. A hub name is downloaded.

    Raises:
        CheckpointError: nothing of that name can be had, or see `unpack`.
    """
    try:
        with hub_folder(source) as folder:
            network, found = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    except CheckpointError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(
            f"--init: {source} is neither a folder with a BERT nor to be had from the hub "
            f"({first_line(error)}); download its config.json and weights and give the folder"
        ) from error
    absent = tuple(found["missing_keys"])
    headless = any(key.startswith("cls.predictions.transform.") for key in absent)
    return {
        key: value
        for key, value in network.state_dict().items()
        if not (key.endswith("position_ids") or (headless and key.startswith("cls.")))
    }
