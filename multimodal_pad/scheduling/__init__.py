"""Scheduling: which samples are in which batch, and at which batch shape (NumPy only)."""
