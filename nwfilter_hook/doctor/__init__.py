"""What is wrong with this host: one check for each thing that may be, in `checks`; nothing is changed."""
