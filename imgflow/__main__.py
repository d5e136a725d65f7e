"""The command `imgflow`, also `python -m imgflow`.

As small as can be, since each pool worker imports the main module of the process that started it.
"""


def main() -> None:
    """Run the command."""
    from imgflow.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
