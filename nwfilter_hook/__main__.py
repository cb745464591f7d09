"""`python -m nwfilter_hook` is the command `nwfilter-hook`."""

from .cli.main import main

if __name__ == "__main__":
    main()
