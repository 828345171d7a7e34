"""Planning: what batch shapes cost, and which ones a run is to have (NumPy only)."""
