"""Options for columns of labels as targets, and for splits without labels."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

from multimodal_pad.errors import PaddingError
from multimodal_pad.sources.label_columns import LabelColumns, parse_label_columns


def add_label_options(parser: Any, default: str = ":") -> None:
    """Add the options to a parser; ``default`` is a column, or ``":"`` for all."""
    shown = "all" if default == ":" else default
    parser.add_argument(
        "--label-column",
        nargs="+",
        default=[default],
        metavar="N",
        help=f"columns of the labels: numbers from 0, names, or ranges such as 1:7 (default: {shown})",
    )
    parser.add_argument(
        "--unlabeled", nargs="+", default=[], metavar="SPLIT", help="splits without labels, such as a blind test set"
    )


def label_column(options: argparse.Namespace, split: str) -> LabelColumns:
    """Return the columns of the labels of a split; None where it has none."""
    return None if split in options.unlabeled else parse_label_columns(options.label_column)


def check_unlabeled(options: argparse.Namespace, splits: Sequence[str]) -> Sequence[str]:
    """Return the splits of a corpus; raises a PaddingError where one without labels is not among them."""
    unknown = [name for name in options.unlabeled if name not in splits]
    if unknown:
        raise PaddingError(f"got --unlabeled {' '.join(unknown)}; the splits are {list(splits)}")
    return splits
