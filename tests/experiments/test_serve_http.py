"""A real client over loopback, against the application that the documentation shows."""

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from multimodal_pad import Fixed
from multimodal_pad.serving import Predictor
from tests.helpers.serving import make_requests
from tests.helpers.training import MeanModel

httpx, uvicorn = pytest.importorskip("httpx"), pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def served():
    """The address of the application, which runs in a thread, and its predictor."""
    from experiments.serving.http import make_app

    samples = make_requests(20, seed=31)
    predictor = Predictor(MeanModel(), Fixed({"text": 8, "audio": 19}), batch_size=4, example=samples[0])
    config = uvicorn.Config(make_app(predictor, max_delay_ms=2), port=0, log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started and thread.is_alive():
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}", predictor, samples
    server.should_exit = True
    thread.join()


def as_json(sample):
    return {name: sample[name].tolist() for name in ("text", "audio")}


def test_clients_get_what_the_predictor_says(served):
    address, predictor, samples = served
    with httpx.Client(base_url=address) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda sample: client.post("/predict", json=as_json(sample)), samples))
        assert [answer.status_code for answer in answers] == [200] * len(samples)
        for answer, wanted in zip(answers, predictor(samples), strict=True):
            np.testing.assert_allclose(answer.json(), wanted, atol=1e-5)
        assert client.get("/stats").json()["answered"] >= len(samples)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": [1]}', "has no 'audio'"),
        ('{"text": [1], "audio": [[1, 2]]}', "got feature shape"),
        ('{"text": [1], "audio": [[1, 2, NaN]]}', "holds NaN or inf"),
        ('{"text": [1], "audio": [[1, 2, "x"]]}', "dtype"),
        ('{"text": [1, 1, 1, 1, 1, 1, 1, 1, 1], "audio": []}', "the longest bucket has 8"),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(served, content, message):
    answer = httpx.post(f"{served[0]}/predict", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert message in answer.json()["detail"]


def test_the_page_shows_the_application():
    shown = re.findall(r"^```py\n(.*?)^```$", (ROOT / "docs" / "predict.md").read_text(), re.DOTALL | re.MULTILINE)
    script = (ROOT / "experiments" / "serving" / "http.py").read_text()
    assert any(block.startswith("def make_app") and block in script for block in shown)
