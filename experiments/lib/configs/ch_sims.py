"""CH-SIMS (Yu et al., ACL 2020), unaligned, as MMSA has it: sentiment from -1 to 1, text as BERT features.

Expected: see MMSA's published results for MulT on SIMS. The settings are those of MOSI in MulT with a smaller batch,
not a paper's; the corpus can't be redistributed, and this was not run on it here.
Run time: not known here. Take an accelerator.

    python -m experiments.train --config ch_sims --data-dir FOLDER_OF_unaligned_39.pkl
"""

from experiments.lib.emotion import Config

CONFIG = Config(
    corpus="mmsa",
    file="unaligned_39.pkl",
    task="sims",
    nonfinite="zero",
    epochs=50,
    batch_size=32,
    learning_rate=1e-3,
    num_heads=10,
    layers=4,
    memory_layers=4,
    kernel_sizes={"text": 1, "audio": 3, "visual": 3},
    dropout=0.1,
    max_shapes=8,
    patience=10,
)
