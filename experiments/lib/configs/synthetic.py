"""Synthetic utterances with MELD's lengths, whose label needs text and audio together.

Expected: weighted F1 on test well above chance (0.33) after five epochs.
Run time: 2 minutes on two CPU cores, most of it compiling.

    python -m experiments.train --config synthetic
"""

from experiments.lib.emotion import Config

CONFIG = Config()
