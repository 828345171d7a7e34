"""Measurements of a step on a device, kept in a file for the next run."""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from multimodal_pad.compiling.options import default_threads
from multimodal_pad.compiling.step_times import StepTime
from multimodal_pad.compiling.table import StepTable, program_digest
from multimodal_pad.errors import CalibrationWarning
from multimodal_pad.layouts.layout import BatchShape, layout_named
from multimodal_pad.output import write_file

FORMAT, VERSION = "multimodal_pad calibration", 1


def identity(table: StepTable, lowered: Any) -> dict[str, Any]:
    """Describe what the seconds of a step depend on: device, compilation and program, as JSON values.

    ``lowered`` is the step at the largest batch shape. Its text holds the model, the optimizer, the shapes and dtypes
    of state and batch, and how they are spread over devices. It has no addresses, unless the step calls back into
    Python: such a step is measured at every start.
    """
    device = jax.devices()[0]
    return {
        "format": FORMAT,
        "version": VERSION,
        "platform": device.platform,
        "device": device.device_kind,
        "runtime": device.client.platform_version,
        "threads": default_threads(),
        "jax": jax.__version__,
        "jaxlib": version("jaxlib"),
        "options": {name: str(value) for name, value in sorted(table.compiler_options.items())},
        "flags": os.environ.get("XLA_FLAGS", ""),
        "step": table.name,
        "program": program_digest(lowered),
    }


class CalibrationFile:
    """The file of one identity in a folder: another device, model or version of JAX has another file.

    Args:
        folder: of the file; None keeps nothing.
        identity: of what is measured, see :func:`identity`.
    """

    def __init__(self, folder: Path | None, identity: dict[str, Any]) -> None:
        self._identity = identity
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        self.path = None if folder is None else folder / f"calibration-{digest[:32]}.json"

    def read(self) -> list[StepTime]:
        """Read the measurements; none where there is no file.

        Warns:
            CalibrationWarning: the file is damaged, or of another device or model; then there are none, too.
        """
        if self.path is None:
            return []
        try:
            values = json.loads(self.path.read_bytes())
            if not isinstance(values, dict) or values.get("identity") != self._identity:
                raise ValueError("it is of another device or model")
            return [_read_time(value) for value in values["times"]]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            self._warn(f"{self.path}: not a calibration that serves here ({error}); it is measured anew and replaced")
            return []

    def write(self, times: list[StepTime]) -> None:
        """Keep measurements, in place of older ones.

        Warns:
            CalibrationWarning: the file can't be written.
        """
        if self.path is None:
            return
        listed = [
            {
                "rows": time.shape.batch_size,
                "lengths": dict(time.shape.lengths),
                "layout": time.shape.layout.name,
                "step_seconds": time.step_seconds,
                "compile_seconds": time.compile_seconds,
            }
            for time in times
            if time.shape.layout == layout_named(time.shape.layout.name)  # the file holds only its name
        ]
        try:
            write_file(self.path, json.dumps({"identity": self._identity, "times": listed}, indent=1).encode())
        except OSError as error:
            self._warn(f"{self.path}: can't be written ({error.strerror}); the next run measures anew")

    @staticmethod
    def _warn(message: str) -> None:
        warnings.warn(message, CalibrationWarning, stacklevel=4)


def _read_time(value: dict[str, Any]) -> StepTime:
    rows, lengths = value["rows"], value["lengths"]
    if any(type(number) is not int or number < 1 for number in (rows, *lengths.values())):
        raise ValueError("rows and lengths must be whole numbers from 1")
    seconds = [float(value["step_seconds"]), float(value["compile_seconds"])]
    if not all(math.isfinite(figure) and figure > 0 for figure in seconds):
        raise ValueError("seconds must be finite numbers above 0")
    return StepTime(BatchShape.of(rows, lengths, value["layout"]), *seconds)
