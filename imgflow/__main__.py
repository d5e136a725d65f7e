"""The command `imgflow`, also `python -m imgflow`.

Keep it tiny: each pool worker imports the main module of the process that started it. The
subcommands are in `imgflow.cli`.
"""


def main() -> None:
    """Run the command."""
    from imgflow.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
