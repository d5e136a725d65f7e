"""Fetching what a URL of somebody else leads to."""
