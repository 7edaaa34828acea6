"""The parts of quickstart.py: each trains and evaluates small models with the real scripts.

A part is a module with `run(args) -> (rows, samples)`: rows of results.json, and predictions to
draw images of. `args` are quickstart.py's: `out`, `data`, `seed`, `set`.
"""
