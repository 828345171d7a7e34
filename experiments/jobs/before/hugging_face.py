"""A dataset of Hugging Face, with audio missing in some rows."""

import numpy as np
from flax import nnx

from experiments.jobs.given import make_dataset
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes
from multimodal_pad.training import fit

dataset = make_dataset()
width = next(len(row["frames"][0]) for row in dataset if row["frames"])
samples = []
for row in dataset:
    frames = row["frames"] or []
    samples.append(
        {
            "text": np.asarray(row["input_ids"], np.int32),
            "audio": np.asarray(frames, np.float32).reshape(len(frames), width),
            "targets": np.int32(row["label"]),
        }
    )
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths)
fit(Classifier(rngs=nnx.Rngs(0)), batcher, epochs=3)
