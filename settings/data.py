"""Training and evaluation data: what all systems share, and what the two forms of samples add.

Sizes in pixels, paths relative to the working directory.
"""

from dataclasses import dataclass, field
from typing import Literal

from groundwork.models.common.checks import require, require_positive

Files = tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What all systems share.

    format: reader of the annotation files, a key of `dataset.sources.SOURCES`: "tuples" (lists of
        ReSC, TransVG, RefTR; their folder says which), "refer" (`refs(x).p` with instances.json
        beside it), "simrec" (anns/x.json), "instances" (instances.json of SeqTR, SimVG, ALVG),
        "flickr30k" (info-ground's folder), "vg" (image, caption, bbox), "coco" (phrases without
        boxes), "labels" (of pseudo_label.py), "phrases" (of tools/prepare_own.py).
    train, evaluate: split -> annotation files. A stage trains on all of `train`, or on the splits
        that it names.
    labels: file of pseudo_label.py that is trained on in place of `train`, whose files are then not
        opened: no annotated box of the training split is read.
    image_root: folder that image paths are relative to ("" = the working directory), or tar shards
        of it: a path or URL, with a * for several (docs/scale.md).
    evaluate_image_root: that of the images of `evaluate`; null: image_root.
    allow_outside_paths: whether an annotation file may name images that are not below image_root.
    max_tokens: a text is cut to this many tokens, special ones included.
    sampling: order of an epoch and its share of each process: "global" (the same global batches
        however many processes share them), or a released rule of `dataset.sampler`; or
        "orientation": batches of images wider than high, or of others, by the sizes that the
        annotation states; either is filled up with repeats to whole batches (SimVG, ALVG).
    text_encoder: tokeniser: name on the hub, or a folder with vocab.txt, or that file; or "words":
        whole words of the annotation files (all of `train` and `evaluate`, and of format "simrec"
        all splits of the files, as released), which are kept in the checkpoints; or a words.txt.
        ALVG: a SentencePiece model such as beit3.spm, or "pieces": a small one trained on the
        training files, kept likewise.
    tolerate_corrupt: images that cannot be decoded are replaced (training) or left out
        (evaluation), and counted in the log.
    opener: how images are opened, one of `dataset.images.OPENERS`; "pillow" is the released rule of
        ALBEF, AMC and SelfEQ, "opencv" that of the others.
    strict: stop at the first record that cannot be used as annotated; otherwise it is used as the
        release uses it, and counted in the log.
    workers: loading processes per process; 0 loads in the process itself.
    cache_dir: folder for the memory-mapped record tables; None = in memory, read anew by each run.
    """

    format: str = "tuples"
    train: dict[str, Files] = field(default_factory=dict)
    evaluate: dict[str, Files] = field(default_factory=dict)
    labels: str | None = None
    image_root: str = ""
    evaluate_image_root: str | None = None
    allow_outside_paths: bool = False
    max_tokens: int = 40
    sampling: Literal["global", "interleaved", "blocks", "orientation"] = "global"
    text_encoder: str = "bert-base-uncased"
    tolerate_corrupt: bool = False
    opener: Literal["shown", "pillow", "opencv"] = "shown"
    strict: bool = False
    workers: int = 4
    cache_dir: str | None = None

    def __post_init__(self) -> None:
        require(self.workers >= 0, f"workers is {self.workers}; use 0 to load in the main process")
        for name in ("train", "evaluate"):
            for split, files in getattr(self, name).items():
                require(bool(files), f"data.{name}.{split} names no file")

    @property
    def evaluation_images(self) -> str:
        """The folder of the images that are evaluated."""
        return self.image_root if self.evaluate_image_root is None else self.evaluate_image_root


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageTextDataConfig(DataConfig):
    """Data of systems that are explained by heat maps (ALBEF).

    train: "train", and "relation" with paraphrases, for the stages that learn from these.
    max_words: a cleaned text is cut to this many words; None: 50 in training, the benchmark's rule
        in evaluation.
    mask_size: side of the square region masks, in mask pixels.
    flip_swaps_words: a mirrored image also swaps "left" and "right" in its text (released: false).
    crop: "whole" (AMC, SelfEQ): resized, flipped, grey, colours jittered; "random" (ALBEF's own
        pre-training): a random part, flipped, RandAugment.
    augment: all of that (a stage may say otherwise); false only resizes.
    colour_jitter: false leaves the colours of whole images as they are: only flips.
    jitter_rule: whole images: "torchvision", or "released", which adds to the saturation.
    randaugment_rule: random parts: "mended", or "released": AutoContrast and Sharpness wrap.
    paraphrase_rule: "whole_words": a synonym replaces whole words, and where it cannot there is no
        paraphrase; "released": it replaces text, and there always is one.
    all_boxes: the region of a phrase is all of its boxes; false (released, whose lists have one box
        each) draws one.
    splits: the evaluated splits of the benchmark; empty = all that it reports.
    test_file: RefCOCO+, RefCLEF: lists of image, text and ref_id, in the place of `evaluate`.
    refcoco_data: RefCOCO+, RefCLEF: REFER root, such that refcoco+/refs(unc).p lies below it.
    split_by: RefCOCO+, RefCLEF: which of REFER's refs(SPLIT_BY).p the lists' references are of.
    det_file: RefCOCO+: proposals per image; None leaves the proposal metric out.
    flickr_data: Flickr30k: folder with {split}.txt, bounding_boxes_{split}.json and
        sentences_{split}.json.
    flickr_lists: Flickr30k: folder with {split}.txt; None = flickr_data.
    """

    format: str = "vg"
    max_tokens: int = 25
    max_words: int | None = None
    mask_size: int = 256
    flip_swaps_words: bool = True
    crop: Literal["whole", "random"] = "whole"
    augment: bool = True
    colour_jitter: bool = True
    jitter_rule: Literal["released", "torchvision"] = "torchvision"
    randaugment_rule: Literal["released", "mended"] = "mended"
    paraphrase_rule: Literal["released", "whole_words"] = "whole_words"
    all_boxes: bool = False
    splits: tuple[str, ...] = ()
    test_file: Files = ()
    refcoco_data: str | None = None
    split_by: Literal["unc", "berkeley"] = "unc"
    det_file: str | None = None
    flickr_data: str | None = None
    flickr_lists: str | None = None

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require_positive(self, "max_words", "mask_size")
        require(self.max_tokens >= 2, "max_tokens must leave space for [CLS] and a token")
        require(self.sampling != "orientation", "sampling: orientation is for images of any shape")

    @property
    def training_words(self) -> int:
        """Words at which a training text is cut."""
        return self.max_words or 50

    def splits_for(self, learns_from: frozenset[str]) -> dict[str, Files]:
        """The splits of `train` of a stage that names none: those with paraphrases for stages that
        learn from them."""
        relation = "paraphrases" in learns_from
        name = "relation" if relation else "train"
        require(name in self.train, f"data.train.{name} names no file; give its annotation files")
        return {name: self.train[name]}


@dataclass(frozen=True, kw_only=True, slots=True)
class ReferringDataConfig(DataConfig):
    """Data of box and mask systems.

    mask_root: folder that paths of `.npy` masks are relative to.
    collections: of the training images of mixed lists; empty: all. The others are left out.
    image_roots: folders of the images of one collection, for mixed lists: coco, vg, saiapr, flickr.
    multi_phrase: a sample is a sentence with all its phrases, not one expression. A sentence of
        more than max_tokens tokens is then an error.
    sentences_at_once: a training sample is up to so many sentences of an image in a row of the
        list, or expressions, as far as max_tokens and max_phrases go: one text with all their
        phrases. The image is then looked at once for all of them, not once for each. Expressions of
        an entry stay together, and more than max_tokens of them are an error, as of a sentence.
        RefTR without masks; not published.
    one_per_object: a training sample is an object with one of its sentences, drawn anew in every
        epoch (RefCLIP, SimREC), not every sentence. Of pseudo-labels it is every sentence all the
        same: each has a box of its own.
    one_per_record: the same with an entry of the annotation file in the object's place (SimVG,
        ALVG): an object, in gRefCOCO's converted file all sentences of an image. Of an entry of an
        evaluation one sentence is drawn, too, always the same.
    max_phrase_tokens, max_phrases: each phrase is cut to so many tokens; a sentence of more phrases
        becomes several samples.
    integer_boxes: boxes are cut towards zero to integers, as RefTR's released code does: corners,
        or in lists of x, y, width and height (of format "tuples") these before they are added.
    last_pixel_boxes: true boxes are clipped to [0, W - 1] x [0, H - 1], in training and evaluation,
        as SimVG's and ALVG's released code does.
    stated_sizes: an image of another size than its record states is an error; false: the image
        counts, as in SimVG and ALVG.
    merged_boxes: the lists hold one box around all boxes of a phrase (ReSC's Flickr30k); the
        results are named so.
    resize: "aspect" keeps it, within image_size (shorter side) and max_image_size (longer side);
        "square" stretches to image_size; "letterbox" keeps it, in the middle of a grey square of
        image_size.
    resampling: whose rules resize images (bilinear) and masks (nearest pixel): "torchvision",
        which smooths before it shrinks (RefTR), or "opencv" (SimVG, ALVG; letterbox always).
    normalize: "imagenet" subtracts its mean and divides by its deviation, "unit" leaves [0, 1].
    jitter: training images are made brighter or darker.
    scale_jitter: they are seen from nearer or farther (SimVG's large-scale jitter; needs boxes).
    fixed_length: pad texts to their limits, as released, not to the longest of the batch; outputs
        do not depend on it.
    """

    mask_root: str | None = None
    image_roots: dict[str, str] = field(default_factory=dict)
    collections: tuple[str, ...] = ()
    multi_phrase: bool = False
    sentences_at_once: int = 1
    one_per_object: bool = False
    one_per_record: bool = False
    max_phrase_tokens: int = 22
    max_phrases: int = 16
    integer_boxes: bool = False
    last_pixel_boxes: bool = False
    stated_sizes: bool = True
    merged_boxes: bool = False
    resize: Literal["aspect", "square", "letterbox"] = "aspect"
    resampling: Literal["torchvision", "opencv"] = "torchvision"
    normalize: Literal["imagenet", "unit"] = "imagenet"
    image_size: int = 640
    max_image_size: int = 640
    jitter: bool = True
    scale_jitter: bool = False
    fixed_length: bool = False

    def __post_init__(self) -> None:
        DataConfig.__post_init__(self)
        require_positive(self, "image_size", "max_image_size", "max_phrases", "sentences_at_once")
        for name in ("max_tokens", "max_phrase_tokens"):
            value = getattr(self, name)
            require(value >= 3, f"{name} is {value}; it must leave space for [CLS], a token, [SEP]")
        require(
            not (self.joins_phrases and (self.one_per_object or self.one_per_record)),
            "data.one_per_object and one_per_record: a sample has one sentence; set both to false,"
            " or multi_phrase to false and sentences_at_once to 1",
        )

    @property
    def joins_phrases(self) -> bool:
        """Whether a training sample may have several phrases."""
        return self.multi_phrase or self.sentences_at_once > 1
