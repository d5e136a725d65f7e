"""The fonts that watermarks are drawn with, as files with their own licences (`LICENSES.txt`).

DejaVu Sans, GNU Unifont for the letters it lacks, and Unifont Upper for code points beyond the
first 65,536. Choosing among them, or a configured font, is in `imgflow.images.watermark`.
"""
