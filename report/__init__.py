"""From predictions to tables, images and pages.

`predictions` (what a system said about every expression), read and written by `prediction_files`
-> `results` (rows of one schema) -> `pages` (Markdown, JSON, HTML) with `sheet` (images of hits and
misses). None of it needs a model.
"""
