"""A predictor behind HTTP: ``POST /predict`` with a sample as JSON, answered in batches of planned shapes.

With Python: python -m experiments.serving.http --predictor FOLDER --port 8000
"""

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI, HTTPException

from multimodal_pad import PaddingError
from multimodal_pad.errors import QueueFullError
from multimodal_pad.serving import Predictor


def make_app(predictor: Predictor, **options: Any) -> FastAPI:
    """Make the application; ``options`` are those of ``predictor.serve``."""

    @asynccontextmanager
    async def serving(app: FastAPI) -> AsyncIterator[None]:
        # Closing answers what was submitted.
        with predictor.serve(**options) as app.state.server:
            yield

    app = FastAPI(lifespan=serving)

    @app.post("/predict")
    async def predict(sample: dict[str, list]) -> list:
        try:
            output = await asyncio.wrap_future(app.state.server.submit(sample, timeout=0))
        except QueueFullError as error:
            raise HTTPException(503, str(error), {"Retry-After": "1"}) from None
        except PaddingError as error:  # names the fault of the sample
            raise HTTPException(422, str(error)) from None
        return output.tolist()

    @app.get("/stats")
    async def stats() -> dict[str, int]:
        found = app.state.server.stats
        return {"answered": found.answered, "failed": found.failed, "waiting": found.waiting}

    return app


def main() -> None:
    """Serve until Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m experiments.serving.http", description=__doc__)
    parser.add_argument("--predictor", required=True, help="a folder of Predictor.save or export, or of checkpoints")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-delay-ms", type=float, default=5.0)
    given = parser.parse_args()
    app = make_app(Predictor.load(given.predictor), max_delay_ms=given.max_delay_ms)
    uvicorn.run(app, host=given.host, port=given.port)


if __name__ == "__main__":
    main()
