"""Shared parts of the experiments: corpora, measuring, tables, results and their provenance."""
