"""The number of batch shapes that pays off in a run: seconds to compile them against seconds to step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import BatchShape
from multimodal_pad.planning.task import Settled


@dataclass(frozen=True)
class RunTime:
    """The times of a run: compiling a shape, and stepping; ``max_shapes="auto"`` weighs one against the other.

    Attributes:
        epochs: of the run.
        compile_seconds: to compile one batch shape.
        seconds_per_cost: of a step, for each unit of the cost of its rows together.
        compiled: batch shapes whose programs exist. They are in the plan in any case, and not compiled again.

    Raises:
        PaddingError: a figure that is negative or not finite.

    >>> from multimodal_pad import LengthTable, plan_shapes
    >>> table = LengthTable(("text",), np.array([[3], [12], [4], [9]]))
    >>> for epochs in (1, 100):
    ...     run_time = RunTime(epochs, compile_seconds=3.0, seconds_per_cost=0.1)
    ...     print(epochs, len(plan_shapes(table, max_shapes="auto", run_time=run_time)), run_time.seconds(4, cost=28))
    1 1 14.8
    100 4 292.0
    """

    epochs: float
    compile_seconds: float
    seconds_per_cost: float
    compiled: tuple[BatchShape, ...] = ()

    def __post_init__(self) -> None:
        for name in ("epochs", "compile_seconds", "seconds_per_cost"):
            if not 0 <= getattr(self, name) < np.inf:
                raise PaddingError(f"got {name}={getattr(self, name)!r}; it must be a finite number, 0 or more")

    def seconds(self, shapes: int, cost: float) -> float:
        """Return the seconds of a run that compiles so many shapes and pays ``cost`` in each epoch."""
        return shapes * self.compile_seconds + self.epochs * cost * self.seconds_per_cost


class ShapeCount:
    """The choice of the number of shapes, while plans with 1, 2, ... of them are found.

    Args:
        run_time: of the run.
        epochs: over which the costs of the plans are summed.
        bounds: for 1, 2, ... shapes, the least cost of any plan: as many as there may be, those compiled included.
        compiled: how many distinct shapes are compiled.

    Attributes:
        found: plans with at most 1, 2, ... shapes.
        plans: the same with the compiled shapes in them.
    """

    def __init__(self, run_time: RunTime, epochs: int, bounds: Sequence[float], compiled: int) -> None:
        self._run_time, self._epochs, self._bounds, self._compiled = run_time, epochs, bounds, compiled
        self.found: list[Settled] = []
        self.plans: list[Settled] = []

    @property
    def best(self) -> int:
        """The place of the plan with which the run takes least time; of several, the first."""
        return int(np.argmin([self._run_seconds(plan) for plan in self.plans]))

    @property
    def is_enough(self) -> bool:
        """Whether no later plan can take less time than the best so far, by the bounds.

        A later plan has one shape more than those found, of which the compiled ones may hold all samples of as many.
        """
        fewest = max(0, len(self.plans) + 1 - self._compiled)
        totals = enumerate(self._bounds[self._compiled + fewest - 1 :], fewest)
        later = [self._run_time.seconds(new, total / self._epochs) for new, total in totals]
        return not later or min(later) >= self._run_seconds(self.plans[self.best])

    @property
    def history(self) -> list[Settled]:
        """The best plans with at most 1, 2, ... shapes, up to the plan chosen."""
        best = self.best
        count = max(best + 1, len(self.plans[best].lengths))
        return [*[*self.found[: best + 1], *[self.found[best]] * count][: count - 1], self.plans[best]]

    @property
    def reason(self) -> str:
        """A line on how many shapes were chosen, and why."""
        chosen, run = self.plans[self.best], self._run_time
        count, new = len(chosen.lengths), len(chosen.lengths) - self._compiled
        alone = next((plan for plan in self.found if plan.fits), chosen)
        whole = self._step_seconds(alone.cost)
        stepping = f"of {tell_seconds(whole)} s of steps in {run.epochs:g} epochs"
        if count == 1:
            tried = self.plans[1] if len(self.plans) > 1 else None
            more = len(tried.lengths) - 1 if tried else 1
            cost = tried.cost if tried else self._bounds[min(1, len(self._bounds) - 1)]
            saved = tell_seconds(max(0.0, whole - self._step_seconds(cost)))
            return (
                f"1 batch shape: {more} more would take {tell_seconds(more * run.compile_seconds)} s to compile and "
                f"save {'' if tried else 'at most '}{saved} s {stepping}"
            )
        compiling = tell_seconds(new * run.compile_seconds)
        saved = tell_seconds(max(0.0, whole - self._step_seconds(chosen.cost)))
        before = f" ({self._compiled} compiled before)" if self._compiled else ""
        alone_is_one = "with one shape" if len(alone.lengths) == 1 else f"with {len(alone.lengths)} shapes"
        return (
            f"{count} batch shapes{before}: compiling {new} takes {compiling} s, and they save {saved} s {stepping} "
            f"{alone_is_one}"
        )

    def _step_seconds(self, cost: float) -> float:
        return self._run_time.seconds(0, cost / self._epochs)

    def _run_seconds(self, plan: Settled) -> float:
        """Return the seconds of the run with a plan, inf where the batch budget doesn't hold."""
        new = len(plan.lengths) - self._compiled
        return self._run_time.seconds(new, plan.cost / self._epochs) if plan.fits else np.inf


def tell_seconds(seconds: float) -> str:
    """Format seconds to at least two digits.

    >>> tell_seconds(1234.5), tell_seconds(9.87), tell_seconds(0.0123)
    ('1,234', '9.9', '0.012')
    """
    return f"{seconds:,.0f}" if seconds >= 9.95 else f"{seconds:.2g}"
