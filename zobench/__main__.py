"""`python -m zobench ...` is `zobench ...`; torchrun starts this module."""

from zobench.cli import main

if __name__ == "__main__":
    main()
