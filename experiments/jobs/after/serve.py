"""Requests one by one from several threads, gathered into batches of planned shapes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import plan_shapes
from multimodal_pad.serving import Predictor

samples = make_samples()
plan = plan_shapes(samples, max_shapes=4, batch_size=16, grouping="random")
predictor = Predictor(Classifier(rngs=nnx.Rngs(0)), plan, example=samples[0])
with predictor.serve(max_delay_ms=5) as server, ThreadPoolExecutor(8) as clients:
    outputs = list(clients.map(lambda sample: server.submit(sample).result(), samples))
print(np.argmax(outputs, axis=1))
