"""What is installed: built, put into fresh roots, compared."""
