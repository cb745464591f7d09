"""A module per kind of check, with a tuple CHECKS; the folder is read."""
