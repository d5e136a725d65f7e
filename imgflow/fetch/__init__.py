"""Fetches URLs that callers chose, only from allowed servers and public addresses.

imgflow's own buckets are in `imgflow.store`.
"""
