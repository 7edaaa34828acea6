"""From annotation files to batches.

annotation file -> `formats.X.read()` -> `Record`s (`record.py`) -> `TrainDataset` / `EvalDataset`
(`grounding.py`) -> `TrainCollate` / `EvalCollate` (`collate.py`) -> batch, for heat maps.
`sources.read_splits` -> `ReferringDataset` (`referring.py`) -> `ReferringCollate`
(`referring/collate.py`) -> batch, for boxes and masks; what a model finds for expressions without
boxes becomes labels (`pseudo_labels.py`, `formats/labels.py`), which are read like any.

This is the one list of a batch's keys.

B samples (or images), T phrases of all images of an evaluation batch, L tokens of the longest
phrase, S image_size, M mask_size, P samples that have a paraphrase, R samples that have a region.
Boxes are xyxy float pixels of the original image, sizes (height, width).

Training batch:
    image            (B, 3, S, S) float32, CLIP mean and deviation
    text_ids         (B, L) int64, [CLS] and word pieces, no [SEP]
    text_mask        (B, L) int64, 1 = token, 0 = padding
    paraphrase_index (P,) int64, which samples have a paraphrase, ascending
    paraphrase_ids   (P, L') int64, rows in that order; (0, 1) without any
    paraphrase_mask  (P, L') int64
    region_index     (R,) int64, which samples have a region, ascending
    region_mask      (R, M, M) float32 in [0, 1], rows in that order
    phrase           list of B str, cleaned; left and right exchanged if the image was mirrored
    paraphrase       list of B str or None
    image_path       list of B str
    corrupt          int, images that could not be decoded and were replaced (0 unless
                     tolerate_corrupt)
    faults           list of str, what of these records cannot be used as annotated

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
    size             list of B (H, W) that boxes, masks and points are in: the image's, or the one
                     that the records state
    image_path       list of B str
    sample_index     list of B int, indices into the data set
    corrupt          list of str, paths of images that could not be decoded and are left out (none
                     unless tolerate_corrupt; if all are, B is 0 and image (0, 3, 0, 0))
    faults           as above

Referring batch (boxes and masks): B images, each with one expression or one sentence; P phrase
slots, (H, W) the padded canvas, (h, w) an image on it, T phrases of all images. The presence of
`phrase_text_ids` selects the mode of several phrases; without it P is 1 and T is B.
    image             (B, 3, H, W) float32, ImageNet mean and deviation, zeros right and below
    image_mask        (B, H, W) bool, True on the padding
    text_ids          (B, L) int64, tokens of the expression or sentence
    text_mask         (B, L) int64, 1 = token
    phrase_text_ids   (B, P, L') int64; an unused slot is [CLS][SEP]
    phrase_text_mask  (B, P, L') int64
    phrase_start      (B, P) int64, first token of the phrase in the sentence; unused slots 0
    phrase_stop       (B, P) int64, the token after its last; unused slots 1
    phrase_valid      (B, P) bool, True = a phrase, not an unused slot
    target_boxes      list of B (n, 4) float32, cxcywh in [0, 1] of the image, a row per phrase:
                      the box around all its boxes; (0, 4) where boxes are not looked at, as in
                      the training of RefCLIP, and so `boxes` is empty
                      With model.several_targets a row per box, which may be none
    target_mask       (B, H, W) bool, where any mask of the sample is; with model.masks only
    target_masks      list of B (n, h, w) bool, a mask per target; with model.several_targets, too
    size              list of B (H, W) of the original image
    resized           list of B (h, w)
    offset            list of B (x, y), the upper left corner on the canvas; (0, 0) but for resize
                      "letterbox", whose canvas is grey around the image and has no padding
    image_path, record_ids, splits      lists of B str
    sample_index      list of B int, indices into the data set
    phrase_image      (T,) int64, which of the B images
    phrase, phrase_ids      lists of T str, as annotated
    expression_ids    list of T str, different for every phrase of the data set
    boxes             list of T (n, 4) float64 arrays, xyxy in original pixels; n may be 0 with
                      model.several_targets
    masks             list of T (H, W) bool arrays or None, original size; evaluation only
    corrupt           as above: int in training, list of str at evaluation
    faults            as above

Limits: one expression is cut to data.max_tokens. A sentence with phrases is not: a longer one is an
error, as is a phrase that is not in its sentence, an empty expression and a mask of another size
than its image. More than data.max_phrases phrases of one sentence make several samples.
"""
