"""The server of examples/: real requests to it, several at a time."""

import asyncio
import sys
from pathlib import Path

import cv2
import numpy as np
from aiohttp.test_utils import TestClient, TestServer

from fer.weights import names

sys.path.append(str(Path(__file__).parents[2] / "examples"))
import server


def test_pictures_are_answered_and_other_bytes_refused() -> None:
    blank = cv2.imencode(".png", np.full((120, 160, 3), 90, np.uint8))[1].tobytes()

    async def talk() -> None:
        async with TestClient(TestServer(server.application())) as client:
            answers = await asyncio.gather(*(client.post("/", data=blank) for _ in range(4)))
            assert [answer.status for answer in answers] == [200] * 4
            assert [await answer.json() for answer in answers] == [[]] * 4
            refused = await client.post("/", data=b"no picture")
            assert refused.status == 400
            assert "error" in await refused.json()

    assert "senet_7" in names()
    asyncio.run(talk())
