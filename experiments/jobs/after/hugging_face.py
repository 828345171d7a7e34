"""A dataset of Hugging Face, with audio missing in some rows."""

from flax import nnx

from experiments.jobs.given import make_dataset
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import batches
from multimodal_pad.sources import HuggingFace
from multimodal_pad.training import fit

source = HuggingFace(make_dataset(), {"text": "input_ids", "audio": "frames"}, targets="label")
fit(Classifier(rngs=nnx.Rngs(0)), batches(source, max_shapes=4, batch_size=16), epochs=3)
