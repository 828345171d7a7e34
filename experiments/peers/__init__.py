"""What other libraries make of the same samples."""
