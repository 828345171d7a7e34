"""A description of a model and its inputs as JSON values, to make it again without the code that trained it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np

from multimodal_pad.errors import PaddingError
from multimodal_pad.layouts.layout import BatchOfLayout
from multimodal_pad.planning.packed import Packed
from multimodal_pad.planning.packing_plan import PackingPlan
from multimodal_pad.planning.plan import ShapePlan
from multimodal_pad.planning.planned import Planned
from multimodal_pad.scheduling.policies import Fixed, Ladder
from multimodal_pad.scheduling.policy import Policy
from multimodal_pad.sources.numpy_dir import NumpyDir
from multimodal_pad.sources.standardizing import FeatureStatistics, Standardized
from multimodal_pad.training.identity import STRUCTURE, describe_structure

TRANSFORMER = "MultimodalTransformer"
"""The kind of model that can be made again from its description."""


MADE_OF = "made_of"
"""The key of a checkpoint's record with the description of model and inputs: see :func:`describe_training`."""


class Batches(Protocol):
    """Batches, as far as they are described."""

    @property
    def policy(self) -> Policy: ...  # noqa: D102  the names say it
    @property
    def batch_size(self) -> int | None: ...  # noqa: D102
    @property
    def source(self) -> Any: ...  # noqa: D102
    def example(self) -> BatchOfLayout: ...  # noqa: D102


def describe_model(model: Any) -> dict[str, Any]:
    """Return the kind and structure of a model, and of this package's transformer its config."""
    from multimodal_pad.models import MultimodalTransformer  # exported programs run without models

    structure = {STRUCTURE: describe_structure(model)}
    if type(model) is MultimodalTransformer:
        sizes = {name: asdict(modality) for name, modality in model.config.modalities.items()}
        return {"kind": TRANSFORMER, "config": {**vars(model.config), "modalities": sizes}, **structure}
    return {"kind": f"{type(model).__module__}.{type(model).__qualname__}", **structure}


def model_of(description: Mapping[str, Any]) -> Any:
    """Make a model like the one described; its values are other ones.

    Raises:
        PaddingError: it is of another kind, or its config makes no sense.

    >>> from flax import nnx
    >>> from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig
    >>> config = TransformerConfig({"text": ModalityConfig(vocabulary_size=3)}, num_outputs=2, d_model=8)
    >>> model_of(describe_model(MultimodalTransformer(config, rngs=nnx.Rngs(0)))).config == config
    True
    """
    from flax import nnx

    from multimodal_pad.models import ModalityConfig, MultimodalTransformer, TransformerConfig

    if description.get("kind") != TRANSFORMER:
        raise PaddingError(
            f"the model is a {description.get('kind')}, which only its own code can make; give model=, one that is "
            "made like it (its values don't matter)"
        )
    try:
        options = dict(description["config"])
        modalities = {name: ModalityConfig(**sizes) for name, sizes in options.pop("modalities").items()}
        config = TransformerConfig(modalities, **options)
    except (TypeError, KeyError, AttributeError) as error:
        raise PaddingError(f"the model's config makes no sense ({error}); give model=, one made like it") from None
    return MultimodalTransformer(config, rngs=nnx.Rngs(0))


def describe_policy(policy: Policy) -> dict[str, Any]:
    """Return a policy as JSON values; its name alone where its class is not one of this package."""
    if type(policy) in (Planned, Packed):
        return {"kind": type(policy).__name__, "plan": json.loads(policy.plan.to_json())}
    if type(policy) in (Fixed, Ladder):
        edges = zip(policy.modalities, policy.edges, strict=True)  # type: ignore[attr-defined]
        return {"kind": type(policy).__name__, "edges": {name: column.tolist() for name, column in edges}}
    return {"kind": f"{type(policy).__module__}.{type(policy).__qualname__}"}


def policy_of(description: Mapping[str, Any]) -> Policy:
    """Make the policy described.

    Raises:
        PaddingError: it is of a kind that only its own code can make, or a plan or edges that make no sense.

    >>> policy_of(describe_policy(Fixed({"text": 8})))
    Fixed({'text': 8})
    """
    kind = description.get("kind")
    if kind == "Planned":
        return Planned(ShapePlan.from_json(json.dumps(description["plan"])))
    if kind == "Packed":
        return Packed(PackingPlan.from_json(json.dumps(description["plan"])))
    if kind == "Ladder":
        return Ladder(description["edges"])
    if kind == "Fixed":
        return Fixed({name: edges[0] for name, edges in description["edges"].items()})
    raise PaddingError(
        f"the policy is a {kind}, which only its own code can make; give plan=, one that is made like it"
    )


def describe_statistics(statistics: Mapping[str, FeatureStatistics]) -> dict[str, Any]:
    """Return statistics of features as JSON values."""
    return {
        name: {"mean": np.asarray(s.mean).tolist(), "std": np.asarray(s.std).tolist(), "frames": int(s.frames)}
        for name, s in statistics.items()
    }


def statistics_of(description: Mapping[str, Any]) -> dict[str, FeatureStatistics]:
    """Make the statistics described.

    >>> statistics_of({"audio": {"mean": [1.0], "std": [2.0], "frames": 3}})
    {'audio': FeatureStatistics(mean=array([1.]), std=array([2.]), frames=3)}
    """
    return {
        name: FeatureStatistics(np.array(s["mean"], np.float64), np.array(s["std"], np.float64), int(s["frames"]))
        for name, s in description.items()
    }


def standardized_by(source: Any) -> dict[str, FeatureStatistics]:
    """Return the statistics that a source's features were standardised by, from its flat cache or from the source."""
    if isinstance(source, Standardized):
        return {**standardized_by(source.source), **source.statistics}
    manifest = source.manifest if isinstance(source, NumpyDir) else None
    return statistics_of(manifest.get("standardized", {})) if manifest else {}


def describe_training(model: Any, batches: Batches) -> dict[str, Any]:
    """Return a checkpoint's description of the model in training and its batches, for loading it to predict.

    Returns:
        JSON values: ``model``, ``policy``, ``batch_size``, ``inputs`` (feature shape and dtype of each modality),
        ``standardized`` and ``vocabularies``.
    """
    example = batches.example()
    samples = example.layout.take_apart(example)
    arrays = {name: np.asarray(samples[0][name]) for name in batches.policy.modalities} if samples else {}
    vocabularies = getattr(batches.source, "vocabularies", None) or {}
    return {
        "model": describe_model(model),
        "policy": describe_policy(batches.policy),
        "batch_size": batches.batch_size,
        "inputs": {name: {"feature_shape": list(x.shape[1:]), "dtype": str(x.dtype)} for name, x in arrays.items()},
        "standardized": describe_statistics(standardized_by(batches.source)),
        "vocabularies": {name: dict(tokens) for name, tokens in vocabularies.items()},
    }
