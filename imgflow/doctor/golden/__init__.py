"""The golden set: small files and the values that they must give, for `imgflow doctor --selftest`.

The values of `cases.json` come from the formulas of the standards, not from imgflow; see
`imgflow_tests/golden.py`, which writes this folder.
"""
