"""What experiments share: corpora, measuring, tables, results and where they come from."""
