"""Inputs as nobody would write them, for every reader: what it makes of each."""
