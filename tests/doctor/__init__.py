"""Faults of a host, each made in a namespace of its own, and what `doctor` says of them."""
