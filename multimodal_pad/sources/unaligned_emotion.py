"""A TFDS dataset of the emotion corpora: ragged features, built from the files that you have, without TensorFlow.

Importing this module registers ``unaligned_emotion`` with TFDS, a config per corpus:

    from multimodal_pad.sources.unaligned_emotion import UnalignedEmotion

    UnalignedEmotion(config="mosi", data_dir=DIR).download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=FOLDER_OF_THE_PICKLE)
    )
    source = sources.tfds("unaligned_emotion/mosi", "train", targets="targets", ids="id", data_dir=DIR)
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from multimodal_pad.errors import SourceError
from multimodal_pad.sources.corpus import Corpus, NonFinite
from multimodal_pad.sources.meld import EMOTIONS as MELD_EMOTIONS
from multimodal_pad.sources.meld import SPLITS as MELD_SPLITS
from multimodal_pad.sources.meld import Meld
from multimodal_pad.sources.mmsa import Mmsa
from multimodal_pad.sources.mult import EMOTIONS as IEMOCAP_EMOTIONS
from multimodal_pad.sources.mult import Mult
from multimodal_pad.sources.tfds_source import require_tfds

tfds = require_tfds()
logger = logging.getLogger(__name__)

_SPLITS = ("train", "valid", "test")


@dataclasses.dataclass(eq=False, kw_only=True)
class EmotionConfig(tfds.core.BuilderConfig):
    """One corpus: its file, and its contents.

    Attributes:
        file: its name in ``manual_dir``; empty where the folder itself is opened.
        widths: features per frame of each modality; 0 for token ids.
        targets: shape and dtype.
        splits: as the file names them.
        open_split: the source of a split.
    """

    file: str
    widths: dict[str, int]
    targets: tuple[tuple[int, ...], Any]
    open_split: Callable[..., Corpus]
    splits: tuple[str, ...] = _SPLITS


def _config(name: str, file: str, open_split: Callable[..., Corpus], description: str, **facts: Any) -> EmotionConfig:
    widths = dict(zip(("text", "audio", "visual"), facts.pop("widths"), strict=True))
    facts = {"targets": ((), np.float32), "splits": _SPLITS, **facts}
    return EmotionConfig(name=name, description=description, file=file, open_split=open_split, widths=widths, **facts)


_ONE_HOT = (len(IEMOCAP_EMOTIONS),), np.int32


class UnalignedEmotion(tfds.core.GeneratorBasedBuilder):
    """Utterances of text, audio and video, each at its own rate and as long as it really is.

    Examples have ``id``, ``targets``, and a ragged ``Tensor`` of shape ``(None, d)`` per modality (token ids:
    ``(None,)``). The files are not downloaded: put yours into ``manual_dir``.

    Args:
        file_format: by default ``"array_record"``, which has random access and needs no TensorFlow.
        nonfinite: what to do with NaN and inf: ``"error"``, or ``"zero"`` puts 0 there, and logs how often.
        kwargs: of ``tfds.core.GeneratorBasedBuilder``; ``config`` names the corpus.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "First version."}  # noqa: RUF012 - as TFDS has it
    MANUAL_DOWNLOAD_INSTRUCTIONS = (
        "manual_dir holds the file of the config: mosi_data_noalign.pkl, mosei_senti_data_noalign.pkl or "
        "iemocap_data_noalign.pkl of MulT; unaligned_50.pkl (MOSI, MOSEI) or unaligned_39.pkl (CH-SIMS) of MMSA; "
        "MELD's three *_sent_emo.csv."
    )
    BUILDER_CONFIGS = [  # noqa: RUF012 - as TFDS has it
        _config("mosi", "mosi_data_noalign.pkl", Mult, "CMU-MOSI, as MulT has it", widths=(300, 5, 20)),
        _config("mosei", "mosei_senti_data_noalign.pkl", Mult, "CMU-MOSEI, as MulT has it", widths=(300, 74, 35)),
        _config(
            "iemocap",
            "iemocap_data_noalign.pkl",
            Mult,
            f"IEMOCAP, as MulT has it; targets are 0 or 1 for {', '.join(IEMOCAP_EMOTIONS)}",
            widths=(300, 74, 35),
            targets=_ONE_HOT,
        ),
        _config("mosi_bert", "unaligned_50.pkl", Mmsa, "CMU-MOSI, as MMSA has it", widths=(768, 5, 20)),
        _config("mosei_bert", "unaligned_50.pkl", Mmsa, "CMU-MOSEI, as MMSA has it", widths=(768, 74, 35)),
        _config("ch_sims", "unaligned_39.pkl", Mmsa, "CH-SIMS, as MMSA has it", widths=(768, 33, 709)),
        EmotionConfig(
            name="meld",
            description=f"The text of MELD as token ids; targets are the number of {', '.join(MELD_EMOTIONS)}",
            file="",
            open_split=functools.partial(Meld, payload="none"),
            widths={"text": 0},
            targets=((), np.int32),
            splits=MELD_SPLITS,
        ),
    ]

    def __init__(self, *, file_format: Any = "array_record", nonfinite: NonFinite = "error", **kwargs: Any) -> None:
        self._nonfinite: NonFinite = nonfinite
        super().__init__(file_format=file_format, **kwargs)

    def _info(self) -> Any:
        config = self.builder_config
        shape, dtype = config.targets
        return tfds.core.DatasetInfo(
            builder=self,
            description=f"{config.description}: unaligned, with true lengths.",
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "targets": tfds.features.Tensor(shape=shape, dtype=dtype),
                    **{
                        name: tfds.features.Tensor(shape=(None, width), dtype=np.float32)
                        if width
                        else tfds.features.Tensor(shape=(None,), dtype=np.int32)
                        for name, width in config.widths.items()
                    },
                }
            ),
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        path = Path(dl_manager.manual_dir) / self.builder_config.file
        return {split: self._generate_examples(path, split) for split in self.builder_config.splits}

    def _generate_examples(self, path: Path, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        source = config.open_split(path, split, nonfinite=self._nonfinite)
        for index, identity in enumerate(source.ids):
            sample = source[index]
            for name, width in config.widths.items():
                if sample[name].shape[1:] != ((width,) if width else ()):
                    raise SourceError(
                        f"{path}, split {split!r}: {name} has features of shape {sample[name].shape[1:]}, and the "
                        f"config {config.name!r} of {(width,)}; choose the config of this corpus"
                    )
            yield identity, {"id": identity, **sample}
        for name, count in source.nonfinite.items():
            if count:
                logger.warning("%s, split %r: %d values of %s that were NaN or inf are 0", path, split, count, name)
