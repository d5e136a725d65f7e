"""The subcommands of `imgflow`, by what they are about."""
