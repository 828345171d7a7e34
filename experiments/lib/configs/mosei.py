"""CMU-MOSEI, unaligned, with the settings of MulT (Tsai et al., ACL 2019, Table 5): sentiment from -3 to 3.

Expected, MulT's unaligned figures: Acc-7 50.7, Acc-2 81.6, F1 81.6, MAE 0.591, Corr 0.694. Our model masks padding,
reads out a mean and uses AdamW without weight decay, so that figures differ somewhat; the corpus can't be
redistributed, and this was not run on it here. COVAREP holds -inf, which become 0, as in MulT.
Run time: not known here. Take an accelerator. Convert the file first, or each epoch decodes its float64.

    multimodal-pad convert mult mosei_senti_data_noalign.pkl CACHE --nonfinite zero
    python -m experiments.train --config mosei --data-dir CACHE
"""

from experiments.lib.emotion import Config

CONFIG = Config(
    corpus="mult",
    file="mosei_senti_data_noalign.pkl",
    task="sentiment",
    nonfinite="zero",
    epochs=20,
    batch_size=16,
    learning_rate=1e-3,
    num_heads=8,
    layers=4,
    memory_layers=4,
    kernel_sizes={"text": 1, "audio": 3, "visual": 3},
    dropout=0.1,
    max_shapes=8,
)
