"""The report: plain data, and ways to read it."""
