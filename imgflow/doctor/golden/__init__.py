"""The golden set: small files and the values they must give, for `imgflow doctor --selftest`.

The values in `cases.json` come from the formulas of the standards, not from imgflow. The tests'
`imgflow_tests/golden.py` writes this folder.
"""
