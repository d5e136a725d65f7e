"""A folder as a source: reached below its root only, and read once files are complete."""
