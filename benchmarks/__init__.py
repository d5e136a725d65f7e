"""Benchmarks: every figure is a ratio to a peer that runs beside it, on the same data."""
