"""``multimodal-pad convert``: any corpus to a flat cache."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from multimodal_pad.commands.bars import telling
from multimodal_pad.commands.convert_files import add_files_options, open_files
from multimodal_pad.commands.help_text import HelpFormatter
from multimodal_pad.commands.label_options import add_label_options, check_unlabeled, label_column
from multimodal_pad.commands.pairs import once, pair
from multimodal_pad.errors import PaddingError
from multimodal_pad.lengths.samples import Source
from multimodal_pad.sources import Csd, MagBert, Meld, Mfn, Mmsa, Mult, NumpyDir, convert, tfds
from multimodal_pad.sources.conversion import Dtype
from multimodal_pad.sources.corpus import NonFinite
from multimodal_pad.sources.corpus import Progress as Tell
from multimodal_pad.sources.mmsa import Lengths
from multimodal_pad.sources.tfds_source import TfdsCorpus
from multimodal_pad.terminal import output_console, tell

HELP = """Write a corpus as a flat cache: per split and modality one memory-mapped .npy with the frames of all samples,
true lengths, targets, ids, and a manifest.json with the input files and the options.

It is written to a temporary folder beside OUT, which is renamed when it is whole: an interrupted run leaves nothing.
Pickles are read as data alone: nothing in them is run."""

EXAMPLES = """examples:
  multimodal-pad convert mult mosi_data_noalign.pkl mosi
  multimodal-pad convert mmsa unaligned_50.pkl mosei \\
      --nonfinite zero --standardize audio visual
  multimodal-pad convert csd FOLDER mosi \\
      --labels CMU_MOSI_Opinion_Labels.csd \\
      --folds folds.json --nonfinite zero \\
      --sequence text=CMU_MOSI_TimestampedWordVectors.csd \\
      --sequence audio=CMU_MOSI_COVAREP.csd
  multimodal-pad convert meld MELD meld \\
      --features audio=WAV2VEC --features visual=FACES
  multimodal-pad convert files mer2023-dataset-process mer \\
      --table label-6way.npz --targets emo \\
      --features audio=features/chinese-hubert-large-FRA \\
      --features visual=features/manet_FRA
  multimodal-pad convert tfds unaligned_emotion/mosi mosi \\
      --targets targets --ids id

in Python:
  source = NumpyDir("mosi", "train")"""

Open = Callable[[Tell], Mapping[str, Source]]


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of ``multimodal-pad``."""
    parser = commands.add_parser(
        "convert",
        help="write a corpus as a flat cache",
        description=HELP,
        epilog=EXAMPLES,
        formatter_class=HelpFormatter,
    )
    parser.set_defaults(run=_run)
    sources = parser.add_subparsers(required=True, metavar="SOURCE", dest="source")

    mult = _source(sources, "mult", "FILE", "a pickle of MulT (MOSI, MOSEI, IEMOCAP), padded on the left", _open_mult)
    _modalities(mult)
    add_label_options(mult)

    mmsa = _source(sources, "mmsa", "FILE", "a pickle of MMSA (MOSI, MOSEI, CH-SIMS), padded on the right", _open_mmsa)
    _modalities(mmsa)
    mmsa.add_argument(
        "--lengths",
        choices=get_args(Lengths),
        default="declared",
        help="lengths of audio and visual: those of the file (default), or up to the last row that is not zero",
    )
    mmsa.add_argument(
        "--labels",
        nargs="+",
        default=["regression_labels"],
        metavar="KEY",
        help="keys of the targets (default: regression_labels); several become columns",
    )
    add_label_options(mmsa)

    csd = _source(sources, "csd", "FOLDER", "computational sequences of the CMU Multimodal SDK", _open_csd)
    csd.add_argument(
        "--sequence",
        action="append",
        type=pair,
        required=True,
        metavar="NAME=FILE",
        help="a modality; may be repeated",
    )
    csd.add_argument(
        "--labels", required=True, metavar="FILE", help="the sequence of labels, whose intervals are samples"
    )
    add_label_options(csd, "0")
    csd.add_argument("--folds", type=Path, metavar="JSON", help='videos of each split: {"train": ["03bSnISJMiM", ...]}')

    mag = _source(sources, "mag_bert", "FILE", "a pickle of MAG-BERT or MISA, lists of examples", _open_mag_bert)
    _modalities(mag)
    _min_count(mag)
    add_label_options(mag)

    mfn = _source(sources, "mfn", "FOLDER", "HDF5 files of MFN (MOSI, MMMO, POM, YouTube)", _open_mfn)
    _modalities(mfn)
    mfn.add_argument(
        "--width",
        action="append",
        type=pair,
        metavar="NAME=N",
        help="width of each modality in X_train.h5, in order; may be repeated (default: text=300 audio=5 visual=20)",
    )
    add_label_options(mfn)

    meld = _source(sources, "meld", "FOLDER", "MELD's three tables, with your features", _open_meld)
    meld.add_argument(
        "--features",
        action="append",
        type=pair,
        metavar="NAME=FOLDER",
        help="FOLDER/train/dia0_utt0.npy and so on, or .npz with an array NAME; may be repeated (default: text alone)",
    )
    meld.add_argument(
        "--noise", action="store_true", help="audio and visual that are noise as long as the utterance, to try things"
    )
    _min_count(meld)

    add_files_options(_source(sources, "files", "FOLDER", "a table of samples, with their feature files", open_files))

    _source(sources, "numpy_dir", "FOLDER", "a flat cache, or a plain folder of arrays with offsets", _open_numpy_dir)

    named = _source(sources, "tfds", "NAME", "a prepared TFDS dataset with ragged features", _open_tfds)
    named.add_argument(
        "--feature",
        action="append",
        type=pair,
        metavar="NAME=KEY",
        help="the feature of a modality; may be repeated (default: all that are ragged)",
    )
    named.add_argument(
        "--targets", nargs="+", metavar="KEY", help="the feature of the targets, or several numbers (default: none)"
    )
    named.add_argument("--ids", metavar="KEY", help="the feature of the ids (default: numbers)")
    named.add_argument("--data-dir", type=Path, metavar="FOLDER", help="folder of TFDS")


def _source(sources: Any, name: str, what: str, description: str, open_splits: Callable[..., Any]) -> Any:
    """Add a parser for one kind of source, with the common arguments and options."""
    parser = sources.add_parser(
        name,
        usage=f"multimodal-pad convert {name} {what} OUT [options]",  # some options take many values
        help=description,
        description=f"Convert {description}.",
    )
    parser.add_argument("input", metavar=what, help="what to convert" if what != "NAME" else "name of the dataset")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to make")
    parser.set_defaults(open_splits=open_splits)
    parser.add_argument(
        "--nonfinite",
        choices=get_args(NonFinite),
        default="error",
        help="what to do with NaN and inf (default: error); zeros are counted in the manifest",
    )
    parser.add_argument(
        "--dtype", choices=get_args(Dtype), default="float32", help="dtype of the features (default: float32)"
    )
    parser.add_argument(
        "--standardize",
        nargs="+",
        default=[],
        metavar="NAME",
        help="modalities to give mean 0 and variance 1 per feature, by the real frames of the split train",
    )
    return parser


def _modalities(parser: Any) -> None:
    parser.add_argument(
        "--modalities", nargs="+", metavar="NAME", help="modalities to convert (default: text audio visual)"
    )


def _min_count(parser: Any) -> None:
    parser.add_argument(
        "--min-count", type=int, default=1, metavar="N", help="rarer tokens count as unknown (default: 1)"
    )


def _run(options: argparse.Namespace) -> None:
    if os.path.lexists(options.out):
        raise FileExistsError(f"{options.out} exists; name another folder, so that nothing is overwritten")
    with telling() as done:
        splits = options.open_splits(options, done)
        manifest = convert(splits, options.out, dtype=options.dtype, standardize=options.standardize, progress=done)
    console = output_console()
    for split, facts in manifest["splits"].items():
        tell(console, f"{split}: {facts['samples']:,} samples")
        for name, count in facts["nonfinite"].items():
            if count:
                tell(console, f"{split}: {count:,} values of {name} that were NaN or inf are 0")
        if facts["left_out"]:
            tell(console, f"{split}: left out {', '.join(row['utterance'] for row in facts['left_out'])}")
    tell(console, f"Written: {options.out} (look at it with: multimodal-pad inspect {options.out})")


def _open_mult(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    return {
        name: Mult(options.input, name, label_column=label_column(options, name), **_common(options, tell))
        for name in check_unlabeled(options, Mult.split_names(options.input))
    }


def _open_mmsa(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    labels = options.labels[0] if len(options.labels) == 1 else options.labels
    chosen = {**_common(options, tell), "lengths": options.lengths, "labels": labels}
    return {
        name: Mmsa(options.input, name, label_column=label_column(options, name), **chosen)
        for name in check_unlabeled(options, Mmsa.split_names(options.input))
    }


def _open_csd(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    return {
        name: Csd(
            options.input,
            name,
            sequences=once(options.sequence, "--sequence"),
            labels=options.labels,
            folds=options.folds,
            label_column=label_column(options, name),
            nonfinite=options.nonfinite,
            progress=tell,
        )
        for name in check_unlabeled(options, Csd.split_names(options.folds))
    }


def _open_mag_bert(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    chosen = {**_common(options, tell), "min_count": options.min_count}
    return {
        name: MagBert(options.input, name, label_column=label_column(options, name), **chosen)
        for name in check_unlabeled(options, MagBert.split_names(options.input))
    }


def _open_mfn(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    widths = once(options.width, "--width") if options.width else None
    if widths is not None and not all(width.isdecimal() and len(width) < 9 for width in widths.values()):
        raise PaddingError(f"got --width {widths}; widths are numbers, such as text=300")
    chosen = {**_common(options, tell), "widths": widths and {name: int(width) for name, width in widths.items()}}
    return {
        name: Mfn(options.input, name, label_column=label_column(options, name), **chosen)
        for name in check_unlabeled(options, Mfn.split_names(options.input))
    }


def _open_meld(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    if options.features and options.noise:
        raise PaddingError("give --features or --noise, not both")
    return {
        name: Meld(
            options.input,
            name,
            payload="synthetic" if options.noise else "none",
            features=once(options.features, "--features") if options.features else None,
            min_count=options.min_count,
            nonfinite=options.nonfinite,
            progress=tell,
        )
        for name in Meld.split_names(options.input)
    }


def _open_numpy_dir(options: argparse.Namespace, _: Tell) -> dict[str, Source]:
    sources = [
        NumpyDir(options.input, name, nonfinite=options.nonfinite) for name in NumpyDir.split_names(options.input)
    ]
    return {source.split: source for source in sources}


def _open_tfds(options: argparse.Namespace, tell: Tell) -> dict[str, Source]:
    return {
        name: tfds(
            options.input,
            name,
            features=once(options.feature, "--feature") if options.feature else None,
            targets=options.targets[0] if options.targets and len(options.targets) == 1 else options.targets,
            ids=options.ids,
            data_dir=options.data_dir,
            nonfinite=options.nonfinite,
            progress=tell,
        )
        for name in TfdsCorpus.split_names(options.input, options.data_dir)
    }


def _common(options: argparse.Namespace, tell: Tell) -> dict[str, Any]:
    """Return the common options of all corpora with fixed modalities."""
    chosen = {} if options.modalities is None else {"modalities": options.modalities}
    return {**chosen, "nonfinite": options.nonfinite, "progress": tell}
