"""The routes of the API, one module per resource.

What they share about HTTP is in `imgflow.api.http`, and what they work with in
`imgflow.api.backend`. The gallery's pages are in `imgflow.api.gallery`.
"""
