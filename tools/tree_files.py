"""Records as the JSON files of the trees that RefCLIP and ALVG print want them."""

from __future__ import annotations

from collections.abc import Mapping

from groundwork.dataset.formats import instances_json, simrec
from groundwork.dataset.formats.grouping import by_object
from groundwork.dataset.record import Record
from groundwork.tools.preparation import Outputs


def write_objects(
    splits: Mapping[str, list[Record]],
    names: tuple[str, str],
    out: Outputs,
    categories: Mapping[str, int] | None = None,
) -> dict[str, int]:
    """Write anns/NAME.json (SimREC) and annotations/NAME/instances.json (ALVG, SimVG, SeqTR).

    Args:
        splits: the first identity of their images names the collection.
        names: of the two files, below `out`.
        categories: name of a class -> SimREC's number of it.

    Returns:
        {name: phrases in the file, read back (in a dry run: that it would hold)}
    """
    found = [record for split in splits for record in by_object(splits[split], categories)]
    out.write(names[0], lambda path: simrec.write(found, path))
    out.write(names[1], lambda path: instances_json.write(found, path))
    if out.dry_run:
        return dict.fromkeys(names, sum(len(record.phrases) for record in found))
    readers = (simrec.read, instances_json.read)
    return {
        name: sum(len(record.phrases) for record in read(out.folder / name))
        for name, read in zip(names, readers, strict=True)
    }
