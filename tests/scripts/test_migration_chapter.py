"""What docs/migration.md says exists."""

import re
from pathlib import Path

from groundwork.tools import published_reftr, reftr_flags

ROOT = Path(__file__).parents[2]
CHAPTER = (ROOT / "docs/migration.md").read_text(encoding="utf-8")


def test_its_files_of_this_project_are_there():
    ours = set(
        re.findall(r"(?:configs/(?:alvg|reftr|refclip)|tools)/[\w+/]+\.(?:yaml|py|sh)", CHAPTER)
    )
    assert ours and all((ROOT / name).is_file() for name in ours)
    table = CHAPTER.partition("| CONFIG | here: `configs/alvg/` |")[2]
    for name in re.findall(
        r"`(large_pretrain_\w+|refcocog_\w+|grefcoco|referit|flickr30k)`", table
    ):
        assert (ROOT / f"configs/alvg/{name}.yaml").is_file(), name


def test_its_flags_of_reftr_are_known():
    section = CHAPTER.partition("flag of `main_vg.py`")[2].partition("## RefCLIP")[0]
    known = {*reftr_flags.VALUES, *reftr_flags.LISTS, *reftr_flags.SWITCHES}
    parser_own = {
        "resume", "resume_model_only", "auto_resume", "output_dir", "device", "seed",
        "pretrained_model", "eval", "checkpoint",
    }  # fmt: skip
    named = set(re.findall(r"`--(\w+)", section))
    assert named <= known | parser_own and len(named) > 30
    assert published_reftr.parse_args(["x.sh", "--eval"])[0].eval
