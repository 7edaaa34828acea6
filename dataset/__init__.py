"""From annotation files to batches.

For heat maps (`image_text/`): annotation file -> `formats.X.read()` -> `Record`s (`record.py`) ->
`TrainDataset` / `EvalDataset` -> `TrainCollate` / `EvalCollate` -> batch.
For boxes and masks (`referring/`): `sources.read_splits` -> `ReferringDataset` ->
`ReferringCollate` -> batch. What a model finds for expressions without boxes becomes labels
(`pseudo_labels.py`, `formats/labels.py`), which are read like any.
For RefCLIP's detector: `detection.py`, from COCO's instances to batch.

`batches.py` lists the keys of every batch with shapes and units; `loader.py` loads them in an order
that follows from seed and epoch.
"""
