"""A check in each file, called after it: `examine` takes a `Patient` and yields `Finding`s."""
