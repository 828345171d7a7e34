"""Options of a run, and those under --quick."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.lib import corpora
from multimodal_pad.models import TransformerConfig


@dataclass(frozen=True)
class Model:
    """One size of the transformer.

    Attributes:
        dtype: its compute dtype.
        d_model: width of the crossmodal encoders.
        num_heads: attention heads.
        layers: layers of each crossmodal encoder and of each memory.
    """

    dtype: str
    d_model: int
    num_heads: int
    layers: int

    @property
    def name(self) -> str:
        """Return the name for tables.

        >>> Model("bfloat16", 256, 8, 4).name
        'bfloat16, d 256, 4 layers'
        """
        return f"{self.dtype}, d {self.d_model}, {self.layers} layer{'s' * (self.layers > 1)}"

    def sized(self, config: TransformerConfig) -> TransformerConfig:
        """Return the configuration of a model of this size for the same modalities."""
        return replace(
            config,
            dtype=self.dtype,
            d_model=self.d_model,
            num_heads=self.num_heads,
            crossmodal_layers=self.layers,
            memory_layers=self.layers,
        )


@dataclass(frozen=True)
class Steps:
    """A model and the policies whose steps a part measures.

    Attributes:
        model: by its name in the configuration.
        policies: of :mod:`experiments.lib.policies`, with their grouping, all of one layout. The batch shapes of the
            first are compiled and timed; every policy is run end to end.
    """

    model: str
    policies: tuple[str, ...]


PADDED = ("planned_8/length", "fixed/random")

SECOND_STARTS = {"second_start": "float32", "packed_second_start": "packed"}
"""Parts that repeat another part until its first step, with a filled compilation cache."""


@dataclass(frozen=True)
class Config:
    """Options of one run, with every default.

    Attributes:
        corpus: samples and batch size.
        models: by their dtype.
        steps: by the name of the part.
        minutes: for all parts together.
        product_size: largest side of the square matrices multiplied.
        windows: the most windows of steps in which samples per second are counted.
        check_lengths: padded lengths of the two modalities of the model that is checked; odd ones.
        arguments: of the command.
    """

    corpus: corpora.Config = field(default_factory=corpora.Config)
    models: Mapping[str, Model] = field(
        default_factory=lambda: {
            "float32": Model("float32", 40, 8, 1),
            "bfloat16": Model("bfloat16", 256, 8, 4),
        }
    )
    steps: Mapping[str, Steps] = field(
        default_factory=lambda: {
            "packed": Steps("float32", ("packed",)),
            "float32": Steps("float32", PADDED),
            "packed_bfloat16": Steps("bfloat16", ("packed",)),
            "bfloat16": Steps("bfloat16", PADDED),
        }
    )
    minutes: float = 8.0
    product_size: int = 16384
    windows: int = 13
    check_lengths: tuple[int, int] = (9, 21)
    arguments: tuple[str, ...] = ()


QUICK_MINUTES = 3.0
"""Options of a tiny run."""


def quick(config: Config) -> Config:
    """Return the options of a tiny run, to check that every part works."""
    corpus = replace(config.corpus, modalities=("text", "audio"), samples=64, batch_size=8)
    models = {"float32": Model("float32", 8, 2, 1), "bfloat16": Model("bfloat16", 16, 2, 1)}
    padded = ("planned_2/length", "fixed/random")
    steps = {
        name: replace(part, policies=padded) if part.policies == PADDED else part for name, part in config.steps.items()
    }
    small = {"product_size": 512, "windows": 2, "check_lengths": (3, 5)}
    return replace(config, corpus=corpus, models=models, steps=steps, **small)
