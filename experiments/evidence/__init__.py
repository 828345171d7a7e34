"""All the evidence in one run, and as one page."""
