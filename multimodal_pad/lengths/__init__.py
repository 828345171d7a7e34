"""Lengths: what a sample and a source are, the length table, files of lengths (NumPy only)."""
