"""The guest, as its domain XML describes it."""
