"""Images in tar shards, which a training reads from any disk or store (docs/scale.md).

    python -m tools.shards pack data/coco/images shards/coco
    python -m tools.shards index "s3://bucket/coco/*.tar"

pack: the images of a folder and of the folders in it, as they are, in the order of their names,
into OUT/00000.tar, 00001.tar, ..., with their index. In a configuration OUT/*.tar then stands for
the folder: data.image_root=shards/coco/*.tar. Shards are as WebDataset has them, with the folder as
a part of every name. The same command makes the same files and keeps those that are there; the
index comes last.

index: writes where every file lies in shards that somebody else made, beside them; every shard is
read once. Shards on this machine need none, but start faster with it.
"""

import argparse
import glob
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from groundwork.dataset.words import require_text
from groundwork.files.lock import held
from groundwork.files.safe import atomic_write, remove_partial
from groundwork.files.shards import scan, tar_file, write_index
from groundwork.jobs import run_script

MEGABYTES = 500  # a shard: some thousand photographs, which a server sends in seconds


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    packing = commands.add_parser("pack", help="a folder of images into shards")
    packing.add_argument("folder", type=Path)
    packing.add_argument("out", type=Path)
    packing.add_argument("--megabytes", type=float, default=MEGABYTES, help="of a shard, about")
    indexing = commands.add_parser("index", help="write where files lie in shards")
    indexing.add_argument("shards", help="a path or URL, with a * for several")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> str:
    """Run with command line arguments `argv`; returns the place of the index."""
    args = parse_args(argv)
    if args.command == "pack":
        out = args.out.expanduser()
        pack(args.folder.expanduser(), out, args.megabytes)
        args.shards = f"{glob.escape(str(out))}/*.tar"
    places = list(tqdm(scan(args.shards), unit="file", mininterval=1.0))
    index = write_index(args.shards, iter(places))
    print(f'{index}: {len(places)} files; --set "data.image_root={args.shards}"')
    return index


def pack(folder: Path, out: Path, megabytes: float = MEGABYTES) -> None:
    """The images of `folder` as shards in `out`.

    Raises:
        FileNotFoundError: there is no image.
        FileExistsError: `out` holds shards of other images, or cut otherwise.
        ValueError: `megabytes` is not above 0, `out` is a URL, or a name is not UTF-8.
    """
    if megabytes <= 0:
        raise ValueError(f"--megabytes {megabytes}: give the size of a shard, above 0")
    if ":/" in str(out):
        raise ValueError(f"{out}: shards are packed on this machine; copy them there afterwards")
    images = _images(folder)
    if not images:
        raise FileNotFoundError(f"{folder} holds no image; give the folder that image_root names")
    parts = list(_parts(images, megabytes * 1e6))
    out.mkdir(parents=True, exist_ok=True)
    with held(out, "packs shards"):
        remove_partial(out, "*.tar")
        kept = [_holds(out / _name(number), folder, part) for number, part in enumerate(parts)]
        others = {path.name for path in out.glob("*.tar")} - {_name(n) for n in range(len(parts))}
        if others:
            raise _other(out / min(others), folder)
        for number, part in enumerate(tqdm(parts, unit="shard")):
            if kept[number]:
                continue
            with atomic_write(out / _name(number)) as partial, tarfile.open(partial, "w") as tar:
                for path in part:
                    content = path.read_bytes()
                    header = _header(path.relative_to(folder).as_posix(), len(content))
                    tar.addfile(header, io.BytesIO(content))


def _images(folder: Path) -> list[Path]:
    """The images in a folder and the folders in it, also those that links lead to, by name."""
    endings, found = Image.registered_extensions(), []

    def refuse(error: OSError) -> None:
        raise error

    for above, folders, files in os.walk(folder, followlinks=True, onerror=refuse):
        if os.path.realpath(above) in map(os.path.realpath, Path(above).parents):
            folders.clear()  # a link to a folder above it: its images have names already
            continue
        for name in files:
            path = Path(above, name)
            if path.suffix.lower() in endings and path.is_file():
                require_text(str(path), "the name")
                found.append(path)
    return sorted(found)


def _name(number: int) -> str:
    return f"{number:05d}.tar"


def _parts(images: Sequence[Path], size: float) -> Iterator[list[Path]]:
    """The images cut into parts of about `size` bytes."""
    part: list[Path] = []
    total = 0
    for path in images:
        part.append(path)
        total += path.stat().st_size
        if total >= size:
            yield part
            part, total = [], 0
    if part:
        yield part


def _header(name: str, size: int) -> tarfile.TarInfo:
    """The same on every machine and on every day."""
    header = tarfile.TarInfo(name)
    header.size = size
    return header


def _holds(shard: Path, folder: Path, images: Sequence[Path]) -> bool:
    """Is a shard there, whole, with these images?

    Raises:
        FileExistsError: it is whole and has others.
    """
    if not shard.is_file():
        return False
    try:
        with shard.open("rb") as raw, tar_file(raw, "r:") as tar:
            names = [member.name for member in tar]
            same = names == [path.relative_to(folder).as_posix() for path in images] and all(
                _content(tar, name) == path.read_bytes()
                for name, path in zip(names, images, strict=True)
            )
    except tarfile.TarError:
        return False
    if not same:
        raise _other(shard, folder)
    return True


def _content(tar: tarfile.TarFile, name: str) -> bytes | None:
    file = tar.extractfile(name)
    return file.read() if file else None


def _other(shard: Path, folder: Path) -> FileExistsError:
    return FileExistsError(
        f"{shard} has not the images that it would have from {folder} today, or was packed with"
        " other --megabytes; empty its folder first"
    )


if __name__ == "__main__":
    run_script(main)
