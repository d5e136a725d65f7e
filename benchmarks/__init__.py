"""Benchmarks: every figure is a ratio to a peer that runs beside it, on the same data.

`make bench` runs them all (`__main__`); `sizing` and `database_bytes` compute docs/scaling.md.
"""
