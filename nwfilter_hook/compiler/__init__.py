"""Bound rules to a ruleset: pure."""
