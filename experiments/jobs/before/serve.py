"""Requests one by one from several threads, gathered into batches of planned shapes."""

import queue
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from flax import nnx

from experiments.jobs.given import make_samples
from experiments.jobs.nnx_models import Classifier
from multimodal_pad import LengthTable, pad_samples, plan_shapes
from multimodal_pad.compiling import warm_up

samples = make_samples()
plan = plan_shapes(LengthTable.measure(samples), max_shapes=4, batch_size=16, grouping="random")
graph, state = nnx.split(Classifier(rngs=nnx.Rngs(0)))


def predict(state, batch):
    return nnx.merge(graph, state)(batch)


requests = queue.Queue(1024)
table = warm_up(predict, plan.spec(pad_samples(samples[:1])), state)


def work():
    while (first := requests.get()) is not None:
        waiting, deadline = [first], time.monotonic() + 0.005
        while len(waiting) < 16:
            try:
                request = requests.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if request is None:
                requests.put(None)
                break
            waiting.append(request)
        try:
            given = [sample for sample, _ in waiting]
            longest = np.max([[len(sample[m]) for m in plan.modalities] for sample in given], axis=0)
            number = plan.place(longest[None])[0]
            if number < 0:
                raise ValueError(f"no shape holds {longest}")
            pad_to = dict(zip(plan.modalities, plan.lengths[number].tolist(), strict=True))
            outputs = np.asarray(table(state, pad_samples(given, pad_to=pad_to, batch_size=16)))
            for (_, future), output in zip(waiting, outputs, strict=False):
                future.set_result(output)
        except Exception as error:  # one bad request spoils the others of its batch
            for _, future in waiting:
                future.set_exception(error)


def ask(sample):
    future = Future()
    requests.put((sample, future))
    return future.result()


worker = threading.Thread(target=work)
worker.start()
with ThreadPoolExecutor(8) as clients:
    outputs = list(clients.map(ask, samples))
requests.put(None)
worker.join()
print(np.argmax(outputs, axis=1))
