"""Benchmarks: every figure is a ratio to a peer that runs beside it, in the same call on the same data."""
