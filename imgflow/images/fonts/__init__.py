"""Fonts of watermarks: for every letter one that has it, the same on every machine.

DejaVu Sans, GNU Unifont for what it lacks, and Unifont Upper beyond the first 65,536 letters lie in
this folder, under licences of their own (`LICENSES.txt`). A font of one's own takes their place.
"""
