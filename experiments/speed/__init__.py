"""How fast every system trains and evaluates: `python -m experiments.speed`."""
