"""Preparation for the first step: checks that all goes together, and the programs."""

from __future__ import annotations

from typing import Any

from multimodal_pad.compiling import warm_up_all
from multimodal_pad.compiling.table import batch_struct
from multimodal_pad.layouts.layout import BatchSpec
from multimodal_pad.training.epochs import Epochs
from multimodal_pad.training.evaluation import choose_metrics
from multimodal_pad.training.feed import Feed
from multimodal_pad.training.limits import Limits, check_dtypes
from multimodal_pad.training.loss import Loss, cross_entropy


def prepare(training: Epochs, model: Any, loss: Loss | None, epochs: int, progress: bool) -> None:
    """Compile every batch shape of a policy that has finitely many, after checking that all goes together.

    That is model, loss, targets and metrics: errors come before anything is compiled.
    """
    work, classes = [(training.train_table, _spec(training.train, epochs))], None
    check_dtypes(work[0][1].example)
    if training.evaluate_on is not None:
        table, spec = training.eval_table, _spec(training.evaluate_on, 1)
        check_dtypes(spec.example)
        shape = spec.shapes[0] if spec.shapes else spec.example.shape
        found = table.result(training.state, batch_struct(spec.example, shape))
        training.metrics = choose_metrics(found, loss, training.metrics, training.monitor)
        classes = found.outputs.shape[-1] if loss is cross_entropy else None
        training.eval_limits = Limits(model, loss, spec.example, classes)
        work.append((table, spec))
    training.train_limits = Limits(model, loss, work[0][1].example, classes)
    finite = [(table, spec) for table, spec in work if spec.shapes]
    if finite:
        compiled = training.listeners.compiled if training.listeners["on_compile"] else None
        warm_up_all(finite, training.state, progress=progress, on_compiled=compiled, check=training.stop.check)


def _spec(feed: Feed, epochs: int) -> BatchSpec:
    """Return the spec to compile for; no shapes where a policy has infinitely many."""
    return feed.spec(epochs) if feed.policy.finite else BatchSpec((), feed.example())
