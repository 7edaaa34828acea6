"""Inference over millions of images: sources and results anywhere, block by block, on one machine
or on a Ray cluster.

`source` cuts a source into blocks and reads them, `work` makes the rows of a block, `store` keeps
them, `run` goes through the blocks here and `cluster` on Ray.
"""
