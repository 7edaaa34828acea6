"""Functions and classes."""
