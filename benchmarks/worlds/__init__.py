"""Worlds whose posteriors are known: what they are, and the benchmark that paints in all of them."""
