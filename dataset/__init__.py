"""From annotation files to batches.

annotation file -> `formats.X.read()` -> `Record`s (`record.py`) -> `TrainDataset` / `EvalDataset`
(`grounding.py`) -> `TrainCollate` / `EvalCollate` (`collate.py`) -> batch. This is the one list of
a batch's keys.

B samples (or images), T phrases of all images of an evaluation batch, L tokens of the longest
phrase, S image_size, M mask_size, P samples that have a paraphrase, R samples that have a region.
Boxes are xyxy float pixels of the original image, sizes (height, width).

Training batch:
    image            (B, 3, S, S) float32, CLIP mean and deviation
    text_ids         (B, L) int64
    text_mask        (B, L) int64, 1 = token, 0 = padding
    paraphrase_index (P,) int64, which samples have a paraphrase, ascending
    paraphrase_ids   (P, L') int64, rows in that order; (0, 1) without any
    paraphrase_mask  (P, L') int64
    region_index     (R,) int64, which samples have a region, ascending
    region_mask      (R, M, M) float32 in [0, 1], rows in that order
    phrase           list of B str, cleaned; left and right exchanged if the picture was mirrored
    paraphrase       list of B str or None
    image_path       list of B str
    corrupt          int, pictures that could not be decoded and were replaced (0 unless
                     tolerate_corrupt)

Evaluation batch:
    image            (B, 3, S, S) float32
    text_ids         (T, L) int64, all phrases of image 0, then of image 1, ...
    text_mask        (T, L) int64
    phrase_image     (T,) int64, which of the B images
    phrase           list of T str, cleaned
    phrase_ids       list of T str
    boxes            list of T (n, 4) float64 arrays, as annotated
    masks            list of T (H, W) bool arrays, or None where no mask is annotated
    splits           list of T str
    record_ids       list of T str
    size             list of B (H, W)
    image_path       list of B str
    image_index      list of B int, indices into the data set
    corrupt          list of str, paths of pictures that could not be decoded and are left out (none
                     unless tolerate_corrupt; if all are, B is 0 and image (0, 3, 0, 0))
"""
