"""MELD (Poria et al., ACL 2019), text alone with its real labels: weighted F1 of seven emotions.

Expected: 0.555 on test (mean of 5 seeds; results/evidence/quality). For comparison, from the literature: text
bc-LSTM 0.564, DialogueRNN 0.570, RoBERTa 0.620. The settings are our own, chosen on dev; no paper is reproduced.
Run time: a minute on two CPU cores.

    python -m experiments.train --config meld --data-dir FOLDER_OF_THE_THREE_CSV_FILES
"""

from experiments.lib.emotion import Config

CONFIG = Config(
    corpus="meld",
    splits=("train", "dev", "test"),
    task="classes",
    classes=7,
    modalities=("text",),
    min_count=2,
    epochs=8,
    batch_size=32,
    learning_rate=1e-3,
    schedule="cosine",
    warmup_steps=100,
    weight_decay=0.01,
    dropout=0.3,
    monitor="weighted_f1",
)
