"""`python -m zobench ...` is `zobench ...`; torchrun starts this one."""

from zobench.cli import main

if __name__ == "__main__":
    main()
