"""Numbers as people read them: the same on every page, in reports and on the command line."""
