"""Batching: schedule and source to a stream of batches (NumPy only)."""
