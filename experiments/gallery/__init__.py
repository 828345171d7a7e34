"""What do batches, a plan and a packing of a corpus look like? Three pictures from its lengths."""
