"""Emotions over HTTP: one predictor, shared by all requests. `python examples/server.py`, then

curl --data-binary @photo.jpg http://127.0.0.1:8080/
"""

import asyncio

from aiohttp import web

from fer import Predictor
from fer.errors import UserError

PREDICTOR = web.AppKey("predictor", Predictor)


async def answer(request: web.Request) -> web.Response:
    """The faces in the picture that was sent, as JSON; 400 and a sentence for what is no picture."""
    try:
        # A thread of its own, so that other requests are answered meanwhile; the predictor may be shared.
        faces = await asyncio.to_thread(request.app[PREDICTOR], await request.read())
    except UserError as error:
        return web.json_response({"error": str(error)}, status=400)
    return web.json_response([{"box": face.box, "emotion": face.label, **face.probabilities} for face in faces])


def application() -> web.Application:
    """The server, with the packaged seven-class network."""
    app = web.Application(client_max_size=20 << 20)
    app[PREDICTOR] = Predictor.load()
    app.router.add_post("/", answer)
    return app


if __name__ == "__main__":
    web.run_app(application(), host="127.0.0.1", port=8080)
