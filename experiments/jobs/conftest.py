"""The scripts train when they are imported, so that doctests leave them alone."""

collect_ignore_glob = ["before/*.py", "after/*.py"]
