"""Fetches URLs that callers chose, from allowed servers and addresses only.

imgflow's own buckets are in `imgflow.store`.
"""
