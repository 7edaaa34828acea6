"""One reader per published annotation format; each yields `Record`s and raises FileNotFoundError or
ValueError, which name file, entry and key, when it cannot. `dataset.sources` has them by name.
"""
