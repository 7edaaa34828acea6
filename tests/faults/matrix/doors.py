"""Imports every script once, in the process that those of the jobs are forked from."""

import predict
import pseudo_label
import test
import train
import train_detector
from groundwork.tools import (
    export,
    make_paraphrases,
    prepare_coco,
    prepare_flickr30k,
    prepare_grefcoco,
    prepare_refclef,
    prepare_refcoco,
    prepare_vg,
)

DOORS = {
    module.__name__.rpartition(".")[2]: module.main
    for module in (
        export, make_paraphrases, predict, prepare_coco, prepare_flickr30k, prepare_grefcoco,
        prepare_refclef, prepare_refcoco, prepare_vg, pseudo_label, test, train, train_detector,
    )
}  # fmt: skip
