"""The papers' central claims, one module each; ``python -m benchmarks.papers`` runs them all."""
