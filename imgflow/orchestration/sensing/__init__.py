"""How new objects get into the catalogue: by listing the source, and by S3 notifications."""
