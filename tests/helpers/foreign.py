"""What the tests of other people's files share: the check of a list or configuration, and spoiling
one of its files."""

import json

from groundwork.tools import check_data
from tests.helpers.script_runs import CONFIGS


def check(name, data, *overrides):
    """All errors and all warnings, kind -> count, of a configuration or list, and its examples."""
    out = data / "report.json"
    file = CONFIGS / f"{name}.yaml" if name.startswith("tiny/") else CONFIGS / "none"
    where = ["--set", f"roots.embedded={data}", *overrides] if file.is_file() else ["--data", data]
    start = [str(file) if file.is_file() else name, "--workers", "1", "--out", str(out)]
    code = check_data.main([*start, *map(str, where)])
    found = {"errors": {}, "warnings": {}}
    parts = json.loads(out.read_text())["parts"]
    for part in parts:
        for kind in found:
            for problem, count in part[kind].items():
                found[kind][problem] = found[kind].get(problem, 0) + count
    assert code == bool(found["errors"])
    return found["errors"], found["warnings"], str([part["examples"] for part in parts])


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


UNREADABLE = {"annotations unreadable": 1}


def several(splits):
    """An entry of "train" with its forms of several targets."""
    return next(entry for entry in splits["train"] if "annotations" in entry)
