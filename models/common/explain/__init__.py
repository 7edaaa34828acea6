"""Explanations: heat maps that say why a system takes a phrase and an image to belong together.

`methods` reads them off the attentions of a network that fuses text and image: a registry of
functions of what a room recorded (`Trace`). `perturbation` asks any system from outside, by hiding
parts of the image, and measures how faithful a map is by deleting and inserting what it names.
"""

from groundwork.models.common.explain.methods import METHODS, Attended, Method, Trace

__all__ = ["METHODS", "Attended", "Method", "Trace"]
