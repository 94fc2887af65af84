"""Whatever holds examples, read in one way: the one door for data."""
