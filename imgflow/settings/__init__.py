"""What the operator says: variables, their values, channels, tokens."""
