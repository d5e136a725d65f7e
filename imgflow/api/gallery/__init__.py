"""The gallery: HTML pages for people, with the same catalogue and the same access as the API.

JSON is answered in `imgflow.api.routes`.
"""
