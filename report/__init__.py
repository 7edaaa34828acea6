"""From predictions to tables, pictures and pages.

`predictions` (what a system said about every expression) -> `results` (rows of one schema) ->
`pages` (Markdown, JSON, HTML) with `sheet` (pictures of hits and misses). None of it needs a model.
"""
