"""A trained model is saved, loaded, and predicts for new samples in their order."""

import tempfile
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import BucketBatcher, LengthTable, Planned, ShapePlan, plan_shapes
from multimodal_pad.training import fit

folder = Path(tempfile.mkdtemp())
samples = make_samples()
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths)
result = fit(Classifier(rngs=nnx.Rngs(0)), batcher, epochs=3)
plan.save(folder / "plan.json")
with ocp.StandardCheckpointer() as saver:
    saver.save(folder / "model", nnx.to_pure_dict(nnx.state(result.model)))

model = Classifier(rngs=nnx.Rngs(0))
graph, state = nnx.split(model)
with ocp.StandardCheckpointer() as saver:
    nnx.replace_by_pure_dict(state, saver.restore(folder / "model", nnx.to_pure_dict(state)))
predict = jax.jit(lambda state, batch: nnx.merge(graph, state)(batch))
new = make_samples(40, seed=1)
batcher = BucketBatcher(new, Planned(ShapePlan.load(folder / "plan.json")), with_ids=True)
outputs = np.zeros((len(new), 2), np.float32)
for batch in batcher.epoch(0):
    real = batch.sample_mask
    outputs[batch.ids[real]] = np.asarray(predict(state, batch))[real]
print(outputs.argmax(axis=1))
