"""What comes of inputs of all kinds: right values, or an error with a remedy."""
