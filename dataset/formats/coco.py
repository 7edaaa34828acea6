"""COCO caption list of SelfEQ, train_file and relation_file in one: as `vg`, without boxes.

[{image, phrase_chunks: str | [str], relation: {group: str, synonym: [str], ...}}]
"""

from functools import partial

from groundwork.dataset.formats import vg

read = partial(vg.read, key="phrase_chunks", boxed=False)
write = partial(vg.write, key="phrase_chunks", boxed=False)
