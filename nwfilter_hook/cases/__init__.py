"""Tests for filters: what a file says, and whether it holds; knows no back end."""
