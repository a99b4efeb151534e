"""Gaussian mixtures, whose posteriors are known in closed form: problems, methods and comparisons over them."""
