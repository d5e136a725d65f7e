"""The command `imgflow`: `main` lists the subcommands, and the other modules group them by topic.

Commands only read arguments and print; the work is done in other packages.
"""
