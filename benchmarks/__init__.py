"""Benchmarks: evidence for what README and docs claim."""
