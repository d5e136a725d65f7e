"""Readers of depth images: a module for each format, and the registry that picks one by suffix.

What happens to the rows afterwards is in `imgflow.depth`.
"""
