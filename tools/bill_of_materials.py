"""What a run is made of: every installed package that requirements.txt leads to, with its licence.

    python -m tools.bill_of_materials --sbom sbom.json --licences docs/licences.md

Written from the metadata of the installed packages: --sbom as CycloneDX JSON, --licences as a table
of Markdown. The same environment gives the same files.
"""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

if not __package__:  # as `python tools/bill_of_materials.py`: the project is not on the path
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from groundwork.files.safe import write_text
from groundwork.jobs import run_script

ROOT = Path(__file__).resolve().parents[1]
_CLASSIFIER = "License :: "
_LONGEST = 60  # letters of a name of a licence; more are its text


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sbom", type=Path, default=Path("sbom.json"))
    parser.add_argument("--licences", type=Path, default=Path("docs/licences.md"))
    return parser.parse_args(argv)


def packages(requirements: Path) -> list[Distribution]:
    """Every installed package that a requirements file leads to, by name.

    Raises:
        FileNotFoundError: one that the file itself names is not installed.
    """
    found: dict[str, Distribution] = {}
    waiting = [(line, True) for line in _lines(requirements)]
    while waiting:
        requirement, direct = Requirement(waiting[0][0]), waiting.pop(0)[1]
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = normalised(requirement.name)
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError as error:
            if direct:
                raise FileNotFoundError(f"{requirements}: {name} is not installed") from error
            continue  # of another platform, or of an extra
        waiting += [(one, False) for one in found[name].requires or ()]
    return [found[name] for name in sorted(found)]


def _lines(requirements: Path) -> Iterator[str]:
    for line in requirements.read_text(encoding="utf-8").splitlines():
        if text := line.partition("#")[0].strip():
            yield text


def normalised(name: str) -> str:
    """The name of a package as an index has it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(package: Distribution) -> str:
    """The licence that a package states: its expression, its classifiers, or its own words."""
    about = package.metadata
    if expression := about.get("License-Expression"):
        return str(expression)
    stated = [one for one in about.get_all("Classifier") or () if one.startswith(_CLASSIFIER)]
    if names := [one.rpartition(" :: ")[2] for one in stated if one != "License :: OSI Approved"]:
        return ", ".join(names)
    words = str(about.get("License") or "").strip().partition("\n")[0]
    return words if 0 < len(words) <= _LONGEST else "not stated"


def sbom(found: Sequence[Distribution]) -> dict[str, Any]:
    """A CycloneDX document, without the time and number that would change it every time."""
    components = [
        {
            "type": "library",
            "bom-ref": f"pkg:pypi/{normalised(one.metadata['Name'])}@{one.version}",
            "name": one.metadata["Name"],
            "version": one.version,
            "purl": f"pkg:pypi/{normalised(one.metadata['Name'])}@{one.version}",
            "licenses": [{"license": {"name": licence_of(one)}}],
        }
        for one in found
    ]
    subject = {"type": "application", "name": "groundwork", "bom-ref": "groundwork"}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
    }


def table(found: Sequence[Distribution]) -> str:
    """The licences as Markdown."""
    lines = [
        "# Licences of what is installed",
        "",
        "Written by `python -m tools.bill_of_materials` from the metadata of the packages that"
        " `requirements.txt` leads to.",
        "Groundwork itself is under the MIT licence.",
        "",
        "| package | version | licence as stated |",
        "|---|---|---|",
    ]
    rows = [
        f"| {one.metadata['Name']} | {one.version} | {licence_of(one).replace('|', '/')} |"
        for one in found
    ]
    return "\n".join([*lines, *rows]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Run with command line arguments."""
    args = parse_args(argv)
    found = packages(ROOT / "requirements.txt")
    write_text(args.sbom, json.dumps(sbom(found), indent=1) + "\n")
    write_text(args.licences, table(found))
    unstated = [one.metadata["Name"] for one in found if licence_of(one) == "not stated"]
    print(f"{len(found)} packages; licence not stated: {', '.join(unstated) or 'none'}")


if __name__ == "__main__":
    run_script(main)
