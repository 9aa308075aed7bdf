"""What experiments cost: records and copies beside calls, and the report over a million rows."""
