"""Cases of feature files and manifests."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from experiments.inputs.case import case


def command(*arguments: str) -> str:
    """Run the console command; return its status and last line."""
    done = subprocess.run([sys.executable, "-m", "multimodal_pad.cli", *arguments], capture_output=True, text=True)
    return f"status {done.returncode}: {(done.stdout + done.stderr).strip().splitlines()[-1]}"


def mertools() -> list[str]:
    """Make a folder like MERTools', with a file per sample of audio and per frame of faces; return its options."""
    corpora = {}
    for split, count in (("train", 4), ("test1", 2)):
        names = [f"{split}_sample_{number:08d}" for number in range(count)]
        corpora[f"{split}_corpus"] = {name: {"emo": "happy", "val": -10} for name in names}
        for length, name in enumerate(names, start=3):
            audio, faces = Path("mer/features/hubert-FRA"), Path("mer/features/manet_FRA", name)
            audio.mkdir(parents=True, exist_ok=True)
            faces.mkdir(parents=True)
            np.save(audio / f"{name}.npy", np.ones((length, 8), np.float32))
            for frame in range(length):
                np.save(faces / f"{frame}.npy", np.full(4, frame, np.float32))
    np.savez_compressed("mer/label-6way.npz", **corpora)
    folders = ["--features", "audio=features/hubert-FRA", "--features", "visual=features/manet_FRA"]
    return ["convert", "files", "mer", "out", "--table", "label-6way.npz", *folders]


@case("new sources", "a folder of MERTools: a file or a folder of frames per sample, labels in an .npz; converted")
def mertools_folder() -> str:
    return command(*mertools(), "--targets", "emo")


@case("new sources", "the same with valence as the target, which MERTools writes as -10 where there is none")
def mertools_without_labels() -> str:
    return command(*mertools(), "--targets", "val")


@case("new sources", "a manifest of NeMo (audio_filepath, duration, text), planned for without reading audio")
def nemo() -> str:
    rows = [{"audio_filepath": "a.wav", "duration": 1 + n / 10, "text": "oh my god"} for n in range(50)]
    Path("manifest.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = ["--field", "audio=duration@50", "--field", "text=text:words"]
    return command("plan", "manifest.json", *fields, "--max-shapes", "2", "--out", "plan.json")


@case("new sources", "cuts.jsonl.gz of Lhotse, planned for without reading audio")
def lhotse() -> str:
    rows = [{"id": str(n), "duration": 1 + n / 10, "supervisions": [{"text": "oh my god"}]} for n in range(50)]
    with gzip.open("cuts.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    fields = ["--field", "audio=duration@50", "--field", "text=supervisions.text:words"]
    return command("plan", "cuts.jsonl.gz", *fields, "--max-shapes", "2", "--out", "plan.json")


@case("silent wrong values", "MELD with token ids of your own in feature files, int64 up to 2^24 + 1")
def token_ids() -> str:
    from multimodal_pad.sources import Meld

    header = "Utterance,Emotion,Dialogue_ID,Utterance_ID,StartTime,EndTime"
    Path("train_sent_emo.csv").write_text(f"{header}\nOh!,joy,0,0,0:00:01.0,0:00:03.0\n")
    Path("tokens/train").mkdir(parents=True)
    np.save("tokens/train/dia0_utt0.npy", np.array([101, 2**24 + 1]))
    text = Meld(".", "train", features={"text": "tokens"})[0]["text"]
    return f"{text.dtype} {text.astype(int).tolist()}"
