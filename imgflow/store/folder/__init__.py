"""A local folder as a source: nothing outside it is reached, and only complete files are read."""
