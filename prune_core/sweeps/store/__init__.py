"""Where runs are kept: SQLite or Postgres."""
