"""The defences of ``benchmarks.museum``, the attacks on them, and the cards that show them."""
