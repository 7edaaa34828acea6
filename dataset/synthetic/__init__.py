"""The embedded data set: drawn scenes with referring expressions, written in the published file
formats.

A scene shows one to five shaped, coloured, textured objects of two sizes on a cluttered, noisy
background. Everything that is said about it is evaluated against its geometry, so every expression
has known targets: exactly one object for the referring expressions, none or several for those kept
for generalised grounding.

Words. Every base word of `vocabulary.SYNONYMS` has one *seen* and one *held-out* synonym. The texts
of the training lists (`vg/train.json`, `vg/captions*.json`) use a synonym, seen or held-out alike,
in place of a base word at a low rate (`synonym_rate`), as rare words occur in real captions: a
model learns both kinds equally well from them, and less well than the base words. The relation
files (`vg/relation.json`, `coco/relation.json`) pair phrases of base words with *seen* synonyms
only. `paraphrases_seen.json` and `paraphrases_heldout.json` therefore separate what self-
consistency taught about the words of its list from what carried over to words that it never paired.
Validation and test expressions use base words only.

Folder (`IMAGE_ROOT` = `<folder>/images`; paths in the VG, COCO, RefCOCO+ and RefCLEF files are
relative to it; `dataset.synthetic.trees` says how those of the further lists are called):

    images/{train,val,test}/000001.jpg
    vg/train.json           region phrases (one box each) and whole-scene captions (box around all)
    vg/train_{1..5}.json    the same, scenes of that many objects
    vg/regions_{1..5}.json  the region phrases of these alone
    vg/captions.json        whole-scene captions; vg/captions_{1..5}.json by number of objects
    vg/relation.json        region phrases with paraphrases; coco/relation.json: without boxes
    refcoco+/               refs(unc).p, instances.json, test.json, dets.json; splits train, val,
                            testA (attribute phrases), testB (positions and relations)
    refclef/                refs(berkeley).p, instances.json, test.json; splits val, test
    flickr30k/              {val,test}.txt, bounding_boxes_{val,test}.json,
                            sentences_{val,test}.json, images/<id>.jpg
    visual_genome/          region_descriptions.json, image_data.json, attributes.json
    flickr30k_entities/     Annotations/<id>.xml, Sentences/<id>.txt, {train,val,test}.txt
    grefcoco/               grefs(unc).json, instances.json, finetune_grefcoco_<split>.json:
                            RefCOCO+ with expressions of several objects and of none
    annotations_resc/       RefTR, ReSC: {unc+,referit,flickr}_<split>.pth, vg_all.pth
    annotations/flickr/     RefTR: flickr_<split>.pth, all phrases of a sentence
    refcoco/{anns,masks}/   RefTR: references with masks
    anns/                   SimREC, RefCLIP: {refcoco+,refclef,flickr30k,merged}.json
    annotations/            ALVG, SimVG, SeqTR: {refcocoplus-unc,referitgame-berkeley,flickr30k,
                            grefcoco,mixed}/instances.json
    tokenizer/vocab.txt     WordPiece vocabulary, special tokens first
    synonyms.json, paraphrases_{seen,heldout}.json, scenes.jsonl (the truth), summary.json
"""

from groundwork.dataset.synthetic.write import write_dataset

__all__ = ["write_dataset"]
