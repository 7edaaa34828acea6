"""The embedded data set in the places where the published configurations look for theirs."""

import json
from pathlib import Path

RELEASED = Path(__file__).parents[1] / "released"
ELSEWHERE = "/somewhere"  # absolute paths of the authors' machines


def build(tree: Path, embedded: Path) -> Path:
    """Fills `tree`, the working directory, which also stands for every absolute path."""
    data = tree / "data"
    data.mkdir(parents=True)
    for name in ("vg", "flickr30k-images", "datasets/vision/coco/images", "data/COCO"):
        _link(tree / name, embedded / ("flickr30k/images" if "flickr" in name else "images"))
    _training_lists(data, embedded)
    _refer(data, embedded)
    proc = tree / "info-ground/flickr30k_proc"
    for file in (embedded / "flickr30k").glob("*.*"):
        _link(
            (proc.with_name("flickr30k_downloads") if file.suffix == ".txt" else proc) / file.name,
            file,
        )
    for name in ("refcoco", "refcoco+", "refcocog"):
        _link(data / f"anns/{name}.json", embedded / "anns/refcoco+.json")
    # The embedded RefCLEF is for evaluation only.
    refclef = json.loads((embedded / "anns/refclef.json").read_text())
    _write(data / "anns/refclef.json", {"train": refclef["val"], **refclef})
    _link(data / "images/train2014", embedded / "images/train2014")
    _link(data / "images/refclef", embedded / "images")
    return tree


def _training_lists(data: Path, embedded: Path) -> None:
    entries = json.loads((embedded / "vg/train.json").read_text())
    for number, name in enumerate(("descriptions", "attributes_spatial", "attributes")):
        _write(data / f"vg_{name}.json", entries[number::3])
    # ALBEF's lists are of captions and whole paths.
    whole = str(embedded / "images")
    pairs = [{"image": f"{whole}/{e['image']}", "caption": e["caption"][0]} for e in entries]
    for number, name in enumerate(("coco", "vg", "cc12m", "cc3m_train", "cc3m_val", "sbu")):
        _write(data / f"{name}.json", pairs[number::6])
    _link(data / "vicuna_v1_6.json", embedded / "vg/relation.json")
    chunks = "vicuna_coco2014_shortchunk_relation_v3.json"
    _link(data / chunks, embedded / "coco/relation.json")


def _refer(data: Path, embedded: Path) -> None:
    for name in ("refcoco+", "refclef"):
        for file in (embedded / name).iterdir():
            # The published RefCLEF lists are by the references of UNC.
            _link(data / name / file.name.replace("berkeley", "unc"), file)
    whole = str(embedded / "images")
    for name, lists in (
        ("refcoco+", ("refcoco+_{}.json", "refcoco+_{}_new_path.json")),
        ("refclef", ("refclef_{}_unique.json", "refclef_{}_unique_fix_split.json")),
    ):
        entries = json.loads((embedded / name / "test.json").read_text())
        sizes = {"val": "val_1k", "test": "test_10k"} if name == "refclef" else {}
        for split in ("val", "test"):
            chosen = [e for e in entries if e["image"].startswith(split)]
            for pattern in lists:
                rows = chosen
                if name == "refclef" or "new_path" in pattern:
                    rows = [e | {"image": f"{whole}/{e['image']}"} for e in chosen]
                _write(data / pattern.format(sizes.get(split, split)), rows)


def copy_config(tree: Path, name: str) -> Path:
    """A published file ("amc/Pretrain.yaml") with its absolute paths rewritten to `tree`."""
    text = (RELEASED / name).read_text()
    path = tree / "published" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.replace(ELSEWHERE, str(tree)))
    return path


def _link(path: Path, target: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))
