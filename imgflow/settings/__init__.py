"""Everything an operator can configure: variables, types of their values, API tokens, channels.

Each setting is used in the package it configures; only sending to alert channels is here.
"""
