from pathlib import Path

import pytest

from multimodal_pad import plan_shapes
from multimodal_pad.planning.plan_plot import plot_plan
from tests.helpers.plans import table_of

matplotlib = pytest.importorskip("matplotlib")

TABLE = table_of([3, 9], [4, 30], [12, 8])


@pytest.mark.parametrize(("name", "begins"), [("plan.png", b"\x89PNG"), ("plan.SVG", b"<?xml"), ("plan.pdf", b"%PDF")])
def test_the_ending_of_the_name_is_the_format(tmp_path, name, begins):
    plot_plan(plan_shapes(TABLE, max_shapes=2), TABLE, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_a_picture_that_cannot_be_drawn_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "plan.png"
    plot_plan(plan_shapes(TABLE, max_shapes=2), TABLE, path)
    before = path.read_bytes()

    def fails_midway(_, out, **__):
        out.write(b"half") if hasattr(out, "write") else Path(out).write_bytes(b"half")
        raise MemoryError

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fails_midway)
    with pytest.raises(MemoryError):
        plot_plan(plan_shapes(TABLE, max_shapes=1), TABLE, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
