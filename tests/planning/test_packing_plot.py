"""The picture of a packing plan: a panel for each modality, and one of what is empty."""

from itertools import pairwise

import numpy as np
import pytest

from multimodal_pad import LengthTable, PaddingError, plan_packing
from multimodal_pad.errors import UncoveredLengthError
from multimodal_pad.planning.packing_plot import draw_packing, plot_packing

figure = pytest.importorskip("matplotlib.figure")

RNG = np.random.default_rng(0)
HEAVY = np.append(RNG.integers(1, 20, 638), [400, 380])


@pytest.fixture
def drawn(monkeypatch):
    """The panels of each picture that is written."""
    figures, save = [], figure.Figure.savefig

    def keep(drawing, *args, **options):
        figures.append(drawing.axes)
        save(drawing, *args, **options)

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", keep)
    return figures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "max_shapes"), [([HEAVY], 2), ([HEAVY, RNG.integers(0, 90, 640)], 1), ([HEAVY % 7] * 4, 1)]
)
def test_every_full_batch_is_counted_below_the_capacity(tmp_path, drawn, columns, max_shapes):
    names = ("text", "audio$", "visual", "touch")[: len(columns)]
    table = LengthTable(names, np.stack(columns, axis=1))
    plan = plan_packing(table, batch_size=16, max_shapes=max_shapes)
    assert len(plan) == max_shapes
    plot_packing(plan, table, tmp_path / "packing.png")
    assert (tmp_path / "packing.png").read_bytes().startswith(b"\x89PNG")
    (panels,) = drawn
    assert len(panels) == len(names) + 1
    for column, panel in enumerate(panels[:-1]):
        assert names[column] in panel.get_xlabel()
        assert max(bar.get_x() + bar.get_width() for bar in panel.patches) <= plan.lengths[-1, column] + 1e-6
        lines = {round(float(line.get_xdata()[0])) for line in panel.lines}
        assert set(plan.lengths[:, column].tolist()) <= lines
        bars = sum(bar.get_height() for bar in panel.patches)
        assert f"({bars:,.0f} full ones of" in panels[0].get_ylabel()
    assert [label.get_text() for label in panels[-1].get_yticklabels()] == [*names, "total"]
    empty = sum(bar.get_width() for bar in panels[-1].patches[len(names) :: len(names) + 1])
    assert empty == pytest.approx(100 * (1 - plan.position_efficiency["total"]))


@pytest.mark.parametrize("lengths", [[5] * 32, [0] * 20, [7, 3]])
def test_batches_that_are_all_the_same_empty_or_short_are_drawn_too(tmp_path, lengths):
    table = LengthTable(("text",), np.array(lengths)[:, None])
    plot_packing(plan_packing(table, batch_size=8), table, tmp_path / "packing.svg")
    assert "<svg" in (tmp_path / "packing.svg").read_text()


def test_what_cannot_be_drawn(tmp_path):
    table = LengthTable(("text",), HEAVY[:, None])
    plan = plan_packing(table, batch_size=16)
    with pytest.raises(PaddingError, match=r"packing\.foo: a plot's name must end in one of"):
        plot_packing(plan, table, tmp_path / "packing.foo")
    longer = LengthTable(("text",), 9 * HEAVY[:, None])
    with pytest.raises(UncoveredLengthError, match="'text' has 3600 positions and the largest capacity is"):
        plot_packing(plan, longer, tmp_path / "packing.png")
    assert not list(tmp_path.iterdir())


def test_long_names_of_modalities_stay_within_their_panels():
    names = ("facial_action_units_of_the_left_camera", "transcript_word_embeddings_300d", "$x$ & <b>")
    table = LengthTable(names, np.stack([RNG.integers(1, 90, 640)] * 3, axis=1))
    picture = draw_packing(plan_packing(table, batch_size=16), table)
    picture.draw_without_rendering()
    boxes = [panel.xaxis.label.get_window_extent() for panel in picture.axes]
    assert all(one.x1 < other.x0 for one, other in pairwise(boxes))
