"""Points: the rows of a table."""
