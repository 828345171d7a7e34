"""What Sphinx is told beyond docs/conf.py."""
