"""Streams of short texts, and buffers of streams fed with lengths alone."""

import numpy as np

from multimodal_pad import Fixed

EIGHT = Fixed({"text": 8})


def texts(lengths):
    return ({"text": np.arange(n), "targets": np.int32(i)} for i, n in enumerate(lengths))


def steps(buffer, values, start=0, look=lambda: None):
    """Feed the rows from ``start`` on, whose samples are their own numbers, and take every batch that is ready."""
    place = start
    while True:
        stop = min(len(values), place + buffer.room)
        buffer.add(values[place:stop], range(place, stop), range(place, stop))
        place = stop
        if place == len(values) and buffer.room:
            buffer.finish()
        if not len(buffer):
            return
        look()
        yield buffer.take()


def plain(taken):
    return taken.padded, taken.batch_size, taken.ordinals, taken.samples


def longest_wait(buffer, values):
    """Of the samples held before a batch, how many later ones the oldest has seen pass."""
    waits = []
    for _ in steps(buffer, values, look=lambda: waits.append(max(buffer.held) - buffer.held[0])):
        pass
    return max(waits)
