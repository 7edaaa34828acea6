"""What a run is made of, as files that name every package once."""

import json
import re
from pathlib import Path

from groundwork.tools import bill_of_materials

ROOT = Path(__file__).parents[2]


def test_every_requirement_is_in_the_bill_with_a_version_and_a_licence(tmp_path):
    sbom, licences = tmp_path / "sbom.json", tmp_path / "licences.md"
    bill_of_materials.main(["--sbom", str(sbom), "--licences", str(licences)])
    content = json.loads(sbom.read_text())
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.5")
    names = [bill_of_materials.normalised(one["name"]) for one in content["components"]]
    assert len(set(names)) == len(names)
    required = re.findall(r"^([a-zA-Z][\w.-]*)", (ROOT / "requirements.txt").read_text(), re.M)
    assert {bill_of_materials.normalised(name) for name in required} <= set(names)
    assert all(one["version"] and one["purl"] for one in content["components"])
    assert licences.read_text().count("\n| ") == len(names) + 1


def test_the_lock_has_hashes_for_every_requirement_and_names_no_index():
    lock = (ROOT / "requirements.lock").read_text()
    names = set(re.findall(r"^([a-z0-9.-]+)==", lock, re.M))
    required = re.findall(r"^([a-zA-Z][\w.-]*)", (ROOT / "requirements.txt").read_text(), re.M)
    assert {bill_of_materials.normalised(name) for name in required} <= names
    assert lock.count("==") <= lock.count("--hash=sha256:")
    assert "://" not in lock and "--index" not in lock and "--find-links" not in lock
