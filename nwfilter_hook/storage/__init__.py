"""All that is written to disk: records and filter files."""
