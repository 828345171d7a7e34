"""Doctests leave the scripts out, since importing one trains."""

collect_ignore_glob = ["before/*.py", "after/*.py"]
