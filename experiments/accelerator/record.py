"""The figures of a part so far, in a file that is whole at every moment."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from multimodal_pad.output import write_file


@dataclass
class Record:
    """The figures of one part; each call of :meth:`keep` writes all of them.

    Attributes:
        path: of the file.
        values: JSON values by name.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     record = Record(Path(folder, "steps.json"))
    ...     record.keep(rows=[1])
    ...     record.note("1 of 2 shapes measured")
    ...     read(record.path)
    {'rows': [1], 'notes': ['1 of 2 shapes measured']}
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)

    def keep(self, **values: Any) -> None:
        """Add or replace figures, and write the file."""
        self.values |= values
        write(self.path, self.values)

    def note(self, text: str) -> None:
        """Add a line on what was not measured, or measured less."""
        self.keep(notes=[*self.values.get("notes", []), text])


def write(path: Path, values: dict[str, Any]) -> None:
    """Replace a file by these JSON values; a reader sees either the old ones or the new ones."""
    write_file(path, (json.dumps(values, indent=1) + "\n").encode())


def read(path: Path) -> dict[str, Any]:
    """Return the values of a file; none where it was never written."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
