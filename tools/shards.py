"""Images in tar shards, which a training reads from any disk or store (docs/scale.md).

    python -m tools.shards pack data/coco/images shards/coco
    python -m tools.shards index "s3://bucket/coco/*.tar"

pack: the images of a folder and of the folders in it, as they are, in the order of their names,
into OUT/00000.tar, 00001.tar, ..., with their index. In a configuration OUT/*.tar then stands for
the folder: data.image_root=shards/coco/*.tar. Shards are as WebDataset has them, with the folder as
a part of every name. The same command makes the same files; a shard that is there whole is kept,
the index comes last.

index: writes where every file lies in shards that somebody else made, beside them; every shard is
read once. Shards on this machine need none, but start faster with it.
"""

import argparse
import io
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from tqdm import tqdm

from groundwork.files.safe import atomic_write, remove_partial
from groundwork.files.shards import INDEX, scan, tar_file, write_index
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
        pack(args.folder, args.out, args.megabytes)
        args.shards = f"{args.out}/*.tar"
    places = list(tqdm(scan(args.shards), unit="file", mininterval=1.0))
    index = write_index(args.shards, iter(places))
    print(f"{index}: {len(places)} files; data.image_root={args.shards}")
    return index


def pack(folder: Path, out: Path, megabytes: float = MEGABYTES) -> None:
    """The images of `folder` as shards in `out`.

    Raises:
        FileNotFoundError: there is no image.
        FileExistsError: `out` holds shards of other images.
        ValueError: `megabytes` is not above 0.
    """
    if megabytes <= 0:
        raise ValueError(f"--megabytes {megabytes}: give the size of a shard, above 0")
    endings = Image.registered_extensions()
    images = sorted(path for path in folder.rglob("*") if path.suffix.lower() in endings)
    if not images:
        raise FileNotFoundError(f"{folder} holds no image; give the folder that image_root names")
    out.mkdir(parents=True, exist_ok=True)
    remove_partial(out, "*.tar")
    (out / INDEX).unlink(missing_ok=True)  # of these shards, or of none
    parts = list(_parts(images, megabytes * 1e6))
    others = {path.name for path in out.glob("*.tar")} - {_name(n) for n in range(len(parts))}
    if others:
        raise FileExistsError(f"{out} holds {min(others)}, which is no shard of {folder}; empty it")
    for number, part in enumerate(tqdm(parts, unit="shard")):
        names = [path.relative_to(folder).as_posix() for path in part]
        if not _holds(out / _name(number), names, part):
            with atomic_write(out / _name(number)) as partial, tarfile.open(partial, "w") as tar:
                for name, path in zip(names, part, strict=True):
                    content = path.read_bytes()
                    tar.addfile(_header(name, len(content)), io.BytesIO(content))


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


def _holds(shard: Path, names: Sequence[str], images: Sequence[Path]) -> bool:
    """Is a shard there, and has it files of these names and sizes?"""
    if not shard.is_file():
        return False
    try:
        with shard.open("rb") as raw, tar_file(raw, "r:") as tar:
            found = [(member.name, member.size) for member in tar]
    except tarfile.TarError:
        return False
    return found == [(name, path.stat().st_size) for name, path in zip(names, images, strict=True)]


if __name__ == "__main__":
    run_script(main)
