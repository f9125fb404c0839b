"""``python -m paramserver``: the command line."""

from paramserver.cli import main

if __name__ == "__main__":
    main()
