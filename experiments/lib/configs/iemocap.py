"""IEMOCAP, unaligned, with the settings of MulT (Tsai et al., ACL 2019): four binary tasks.

Expected: see MulT's Table 3, accuracy and F1 of happy, sad, angry and neutral. Our model has one logit per task where
MulT has two, masks padding and reads out a mean; the corpus can't be redistributed, and this was not run on it here.
Run time: not known here. Take an accelerator.

    python -m experiments.train --config iemocap --data-dir FOLDER_OF_iemocap_data_noalign.pkl
"""

from experiments.lib.emotion import Config

CONFIG = Config(
    corpus="mult",
    file="iemocap_data_noalign.pkl",
    task="emotions",
    nonfinite="zero",
    epochs=30,
    batch_size=32,
    learning_rate=2e-3,
    num_heads=10,
    layers=4,
    memory_layers=4,
    kernel_sizes={"text": 3, "audio": 3, "visual": 5},
    dropout=0.1,
    max_shapes=8,
)
