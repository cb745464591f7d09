"""Frames by words that people know, from hexadecimal text and captures; knows no filter and no back end."""
