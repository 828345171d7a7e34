"""Training on two devices."""

from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import BucketBatcher, LengthTable, Planned, plan_shapes
from multimodal_pad.training import fit

samples = make_samples()
lengths = LengthTable.measure(samples)
plan = plan_shapes(lengths, max_shapes=4, batch_size=16)
batcher = BucketBatcher(samples, Planned(plan), lengths=lengths)
fit(Classifier(rngs=nnx.Rngs(0)), batcher, epochs=3)  # on all devices that there are
