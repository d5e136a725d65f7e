"""Everything an operator can configure: the variables, the types of their values, tokens, channels.

Acting on a setting is in the package it configures.
"""
