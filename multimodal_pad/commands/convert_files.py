"""``multimodal-pad convert files``: the features, ids, targets and splits of a corpus of feature files."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from multimodal_pad.commands.pairs import once, pair
from multimodal_pad.lengths.samples import Source
from multimodal_pad.sources import Files
from multimodal_pad.sources.corpus import Progress
from multimodal_pad.sources.feature_files import Absent, Vectors


def add_files_options(parser: Any) -> None:
    """Add the options to a parser."""
    parser.add_argument(
        "--table",
        required=True,
        metavar="FILE",
        help="in FOLDER, a row per sample: .csv, .tsv, .jsonl, .jsonl.gz, MERTools' .npz; one per split with {split}",
    )
    parser.add_argument(
        "--features",
        action="append",
        type=pair,
        default=[],
        metavar="NAME=FOLDER",
        help="a modality in FOLDER/ID.npy, ID.npz or ID/ (a file per frame); may be repeated; {split} is the split",
    )
    parser.add_argument(
        "--paths",
        action="append",
        type=pair,
        default=[],
        metavar="NAME=FIELD",
        help="a modality whose files a field of the table names; may be repeated",
    )
    parser.add_argument(
        "--ids", metavar="FIELD", help="field of the ids, or a form such as dia{Dialogue_ID} (default: id or name)"
    )
    parser.add_argument("--targets", nargs="+", metavar="FIELD", help="fields of the targets (default: none)")
    parser.add_argument(
        "--classes",
        nargs="+",
        metavar="CLASS",
        help="targets that are classes, in order (default: that of the alphabet)",
    )
    parser.add_argument(
        "--split-field", metavar="FIELD", help="field of the split (default: split, where there is one)"
    )
    parser.add_argument(
        "--folds", type=Path, metavar="JSON", help='in its place, ids by split: {"train": ["Ses01*", ...], ...}'
    )
    parser.add_argument("--splits", nargs="+", metavar="SPLIT", help="splits to convert (default: all)")
    parser.add_argument(
        "--absent",
        choices=get_args(Absent),
        default="error",
        help="what to do with a sample without a file (default: error); missing: it lacks the modality",
    )
    parser.add_argument(
        "--vectors",
        choices=get_args(Vectors),
        help="what arrays of one axis are: the features of one frame, or positions of one number",
    )


def open_files(options: argparse.Namespace, tell: Progress) -> dict[str, Source]:
    """Open every split of the corpus."""
    table = {name: getattr(options, name) for name in ("table", "ids", "split_field", "folds")}
    targets = options.targets[0] if options.targets and len(options.targets) == 1 else options.targets
    return {
        name: Files(
            options.input,
            name,
            **table,
            features=once(options.features, "--features"),
            paths=once(options.paths, "--paths"),
            targets=targets,
            classes=options.classes,
            absent=options.absent,
            vectors=options.vectors,
            nonfinite=options.nonfinite,
            progress=tell,
        )
        for name in options.splits or Files.split_names(options.input, **table)
    }
