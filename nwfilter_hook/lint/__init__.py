"""What is probably not meant in a filter: a file per kind of check in checks/."""
