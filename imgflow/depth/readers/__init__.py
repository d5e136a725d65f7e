"""Readers of depth images: one module a format, and the registry that picks one by suffix."""
