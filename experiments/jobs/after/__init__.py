"""Each job with the library as it is."""
