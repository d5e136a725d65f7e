"""New objects to the catalogue: by listing the source, and by notifications from a queue."""
