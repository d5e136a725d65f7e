"""Shim for tools of the classic Dagster layout; everything is in pyproject.toml."""

from setuptools import setup

setup()
