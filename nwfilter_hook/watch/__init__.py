"""The service: it sees what no hook is told of, and what others do to our rules."""
