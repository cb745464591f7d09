"""The filter library: filters as objects, and changing them under running guests."""
