"""The HTTP API and the gallery: `routes` and `gallery` answer, with `http` and `backend` below.

`app` assembles them, `routing` registers routes, and `auth` decides who may do what.
"""
