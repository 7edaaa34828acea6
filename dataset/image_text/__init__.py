"""Samples of image-text systems: an image with a phrase, its paraphrase and its region."""
