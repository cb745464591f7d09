"""`python -m nwfilter_hook` is the command `nwfilter-hook`."""

from .cli import main

if __name__ == "__main__":
    main()
