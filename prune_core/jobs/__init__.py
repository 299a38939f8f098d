"""Everything the worker can be asked, as frozen data."""
