"""Layouts: how the samples of a batch lie in its arrays (NumPy only)."""
