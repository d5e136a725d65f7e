"""Watching over the processes of `imgflow up`, and over the work itself."""
