"""The command `imgflow`: `main` lists the subcommands, which are grouped by what they are about."""
