"""What one accelerator does: ``python -m experiments.accelerator``, and the tables of its results."""

from experiments.accelerator.report import markdown

__all__ = ["markdown"]
