"""Samples of box and mask systems: an image with one expression, or a sentence with its phrases."""
