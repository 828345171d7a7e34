"""A profile names the steps and what the host does."""

import jax
import pytest

from multimodal_pad import spans
from multimodal_pad.training import fit
from multimodal_pad.training.checkpoint import Checkpoints
from tests.helpers.training import MeanModel, make_batcher


@pytest.mark.slow
def test_a_profile_has_the_names(tmp_path):
    with jax.profiler.trace(str(tmp_path / "profile")), Checkpoints(tmp_path / "checkpoints") as checkpoints:
        fit(
            MeanModel(),
            make_batcher(),
            epochs=1,
            evaluate_on=make_batcher(),
            checkpoints=checkpoints,
            progress=False,
        )
    (file,) = (tmp_path / "profile").rglob("*.xplane.pb")
    profile = file.read_bytes()
    names = [spans.READ, spans.LAY_OUT, spans.WAIT, spans.EVALUATE, spans.SAVE, "train_step", "6 x (audio 4)"]
    assert [name for name in names if name.encode() not in profile] == []
    assert b"no such name" not in profile


def test_without_jax_a_span_is_nothing(monkeypatch):
    monkeypatch.setattr(spans, "_make", None)
    with spans.span(spans.READ) as block:
        assert block is None
    with pytest.raises(KeyError), spans.span(spans.READ):
        raise KeyError
