"""CMU-MOSI, unaligned, with the settings of MulT (Tsai et al., ACL 2019, Table 5): sentiment from -3 to 3.

Expected, MulT's unaligned figures: Acc-7 39.1, Acc-2 81.1, F1 81.0, MAE 0.889, Corr 0.686 (as later papers quote them).
Our model masks padding, reads out a mean and uses AdamW without weight decay, so that figures differ somewhat; the
corpus can't be redistributed, and this was not run on it here.
Run time: over a minute an epoch on two CPU cores, after some minutes of compiling (with a generated file of this size).

    python -m experiments.train --config mosi --data-dir FOLDER_OF_mosi_data_noalign.pkl
"""

from experiments.lib.emotion import Config

CONFIG = Config(
    corpus="mult",
    file="mosi_data_noalign.pkl",
    task="sentiment",
    epochs=100,
    batch_size=128,
    learning_rate=1e-3,
    num_heads=10,
    layers=4,
    memory_layers=4,
    kernel_sizes={"text": 1, "audio": 3, "visual": 3},
    dropout=0.1,
    max_shapes=8,
    patience=20,
)
