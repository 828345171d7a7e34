"""A trained model is saved, loaded, and predicts for new samples in their order."""

import tempfile
from pathlib import Path

import numpy as np
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import batches
from multimodal_pad.serving import Predictor
from multimodal_pad.training import fit

folder = Path(tempfile.mkdtemp(), "model")
batcher = batches(make_samples(), max_shapes=4, batch_size=16)
result = fit(Classifier(rngs=nnx.Rngs(0)), batcher, epochs=3)
Predictor(result.model, batcher.policy, example=batcher).save(folder)

predictor = Predictor.load(folder, model=Classifier(rngs=nnx.Rngs(0)))
print(np.argmax(predictor(make_samples(40, seed=1)), axis=1))
