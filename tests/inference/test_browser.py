"""mode=browser: the wire, who may connect, and the page in a real browser."""

import asyncio
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import cv2
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from fer.errors import UserError
from fer.inference.analyzer import FaceAnalyzer
from fer.inference.browser import Server, create_app, listen
from fer.inference.pictures import read_picture
from fer.inference.prediction import Detection
from fer.settings.infer import InferSettings

ROOT = Path(__file__).parents[2]
MEDIA = Path(os.environ.get("FER_SHARED", ROOT.parent / "shared")) / "media"
CHROMIUM = shutil.which("chromium")
TOKEN = "a secret"
CLASSES = ("happy", "sad")
Client = TestClient[Any, Any]


class BrightIsHappy:
    classes: tuple[str, ...] = CLASSES
    size = 48

    def probabilities(self, faces: np.ndarray) -> np.ndarray:
        happy = faces.reshape(len(faces), -1).mean(1) / 255
        return np.stack([happy, 1 - happy], 1).astype(np.float32)


class Whole:
    def __call__(self, picture: np.ndarray) -> list[Detection]:
        return [Detection((0, 0, *picture.shape[1::-1]), 0.9)]


def new_analyzer() -> FaceAnalyzer:
    return FaceAnalyzer(BrightIsHappy(), Whole(), smoothing=0)


def jpeg(gray: int = 200, size: tuple[int, int] = (64, 64)) -> bytes:
    file = io.BytesIO()
    Image.new("L", size, gray).save(file, "JPEG")
    return file.getvalue()


def serving(
    test: Callable[[Client], Coroutine[Any, Any, None]],
    analyzer: Callable[[], FaceAnalyzer] = new_analyzer,
    **more: Any,
) -> None:
    """Runs `test` with a client of a server."""

    async def run() -> None:
        app = create_app(TOKEN, analyzer, CLASSES, **more)
        async with TestClient(TestServer(app)) as client:
            await asyncio.wait_for(test(client), 60)

    asyncio.run(run())


def ask(**more: str) -> str:
    return "/ws?" + "&".join(f"{name}={value}" for name, value in {"token": TOKEN, **more}.items())


async def exchange(viewer: aiohttp.ClientWebSocketResponse, data: bytes) -> dict[str, Any]:
    await viewer.send_bytes(data)
    answer: dict[str, Any] = await viewer.receive_json(timeout=20)
    return answer


# --- the wire ---------------------------------------------------------------------------------------------------------


def test_an_answer_has_the_keys_of_the_predictions() -> None:
    async def test(client: Client) -> None:
        async with client.ws_connect(ask()) as viewer:
            first, second = await exchange(viewer, jpeg(200)), await exchange(viewer, jpeg(40))
        assert list(first) == ["time", "faces", "milliseconds"]
        assert 0 <= first["time"] < second["time"]
        assert list(first["milliseconds"]) == ["decode", "detect", "network", "total"]
        (face,) = first["faces"]
        assert list(face) == [
            *("track", "box", "score", "emotion", "confidence", "probabilities", "smoothed", "uncertain"),
        ]
        assert face["uncertain"] is False
        assert (face["track"], face["box"], face["emotion"]) == (1, [0, 0, 64, 64], "happy")
        assert face["confidence"] == pytest.approx(200 / 255, abs=0.01)
        assert (second["faces"][0]["track"], second["faces"][0]["emotion"]) == (1, "sad")

    serving(test)


@pytest.mark.parametrize(("min_confidence", "turned"), [(0.9, 0), (0.0, 90)])
def test_an_unsure_face_and_one_that_had_to_be_turned_are_uncertain(min_confidence: float, turned: int) -> None:
    def whole(picture: np.ndarray) -> list[Detection]:
        return [Detection((0, 0, *picture.shape[1::-1]), 0.9, turned)]

    async def test(client: Client) -> None:
        async with client.ws_connect(ask(still="1")) as viewer:
            answer = await exchange(viewer, jpeg(200))
        assert [face["uncertain"] for face in answer["faces"]] == [True]

    serving(test, lambda: FaceAnalyzer(BrightIsHappy(), whole, smoothing=0, min_confidence=min_confidence))


def test_a_still_picture_is_not_followed() -> None:
    async def test(client: Client) -> None:
        async with client.ws_connect(ask(still="1")) as viewer:
            answer = await exchange(viewer, jpeg())
        assert answer["time"] is None
        assert answer["faces"][0]["track"] is None

    serving(test)


def test_two_connections_keep_their_own_tracks() -> None:
    """The second begins with 1 although the first has come to 2, and their times are their own."""

    async def test(client: Client) -> None:
        async with client.ws_connect(ask()) as one, client.ws_connect(ask()) as other:
            ids = [(await exchange(one, jpeg(size=size)))["faces"][-1]["track"] for size in ((64, 64), (640, 640))]
            assert ids == [1, 2]
            await asyncio.sleep(0.2)
            late = await exchange(other, jpeg(size=(640, 640)))
            assert late["faces"][0]["track"] == 1
            assert [face["track"] for face in (await exchange(one, jpeg(size=(640, 640))))["faces"]] == [2]

    serving(test)


def png() -> bytes:
    file = io.BytesIO()
    Image.new("L", (9, 9)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no JPEG"),
        (b"no picture", "no JPEG"),
        (png(), "no JPEG"),
        (jpeg(size=(600, 600))[:-300], "cut short"),
        (jpeg(size=(5000, 4000)), "5000 x 4000 pixels is too large"),
    ],
)
def test_what_is_no_picture_is_answered_and_the_next_one_is_taken(data: bytes, message: str) -> None:
    async def test(client: Client) -> None:
        async with client.ws_connect(ask()) as viewer:
            answer = await exchange(viewer, data)
            assert list(answer) == ["error"]
            assert message in answer["error"]
            await viewer.send_str("hello")
            assert "binary" in (await viewer.receive_json())["error"]
            assert (await exchange(viewer, jpeg()))["faces"]

    serving(test)


def test_a_large_picture_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(data: bytes) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("fer.inference.browser.to_picture", decode)

    async def test(client: Client) -> None:
        async with client.ws_connect(ask()) as viewer:
            assert "too large" in (await exchange(viewer, jpeg(size=(5000, 4000))))["error"]

    serving(test)


def test_who_connects_and_says_nothing_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer.inference.browser.MOST_OPEN", 3)
    monkeypatch.setattr("fer.inference.browser.PATIENCE_SECONDS", 0.5)

    async def test() -> None:
        runner = web.AppRunner(create_app(TOKEN, new_analyzer, CLASSES))
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", 0))
        server = await listen(runner, listening)
        host, port = listening.getsockname()
        async with aiohttp.ClientSession() as session, session.ws_connect(f"http://{host}:{port}{ask()}") as viewer:
            silent = [await asyncio.open_connection(host, port) for _ in range(4)]
            with suppress(ConnectionError):  # the last two found no room
                assert await asyncio.wait_for(silent[3][0].read(), 0.4) == b""
            silent[0][1].write(b"GET / HTTP/1.1\r\nHost: ")  # and nothing more
            for reader, writer in silent:
                with suppress(ConnectionError):
                    assert await asyncio.wait_for(reader.read(), 5) == b""
                writer.close()
            assert (await exchange(viewer, jpeg()))["faces"]  # a viewer stays
        server.close()
        await runner.cleanup()

    asyncio.run(test())


def test_a_message_that_is_too_long_ends_the_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer.inference.browser.MOST_BYTES", 1000)  # so that it is sent whole before the answer

    async def test(client: Client) -> None:
        async with client.ws_connect(ask()) as viewer:
            await viewer.send_bytes(bytes(1001))
            message = await viewer.receive(timeout=20)
            assert message.type == aiohttp.WSMsgType.CLOSE
            assert message.data == 1009

    serving(test)


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fer.inference.browser.MOST_CONNECTIONS", 2)

    async def test(client: Client) -> None:
        async with client.ws_connect(ask()):
            async with client.ws_connect(ask()) as second:
                with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                    await client.ws_connect(ask())
                assert refused.value.status == 503
                assert (await exchange(second, jpeg()))["faces"]
            await asyncio.sleep(0.1)
            async with client.ws_connect(ask()) as third:  # a place is free again
                assert (await exchange(third, jpeg()))["faces"]

    serving(test)


# --- who may connect --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "headers", "status"),
    [
        (TOKEN, {}, 200),
        ("", {}, 403),
        ("wrong", {}, 403),
        ("\u00e9", {}, 403),
        (TOKEN, {"Host": "localhost:9"}, 200),
        (TOKEN, {"Host": "[::1]:8000"}, 200),
        (TOKEN, {"Host": "Lab.example:8000"}, 200),
        (TOKEN, {"Host": "evil.example"}, 403),
        (TOKEN, {"Host": "127.0.0.1.evil.example"}, 403),
        (TOKEN, {"Host": "127.0.0.1:80; script-src *"}, 403),
        (TOKEN, {"Host": "localhost", "Origin": "http://localhost"}, 200),
        (TOKEN, {"Host": "localhost:9", "Origin": "http://localhost:8"}, 403),
        (TOKEN, {"Host": "localhost", "Origin": "http://evil.example"}, 403),
        (TOKEN, {"Host": "localhost", "Origin": "null"}, 403),
        (TOKEN, {"Host": "localhost", "Origin": "http://[::1"}, 403),
        (TOKEN, {"Host": "localhost", "Origin": "http://\u2100/"}, 403),
    ],
)
def test_who_may_have_the_page_and_connect(token: str, headers: dict[str, str], status: int) -> None:
    async def test(client: Client) -> None:
        page = await client.get("/", params={"token": token}, headers=headers)
        assert page.status == status
        text = await page.text()
        assert TOKEN not in text
        assert ("<video" in text) == (status == 200)
        try:
            async with client.ws_connect("/ws", params={"token": token}, headers=headers):
                connected = 200
        except aiohttp.WSServerHandshakeError as error:
            connected = error.status
        assert connected == status

    serving(test, hosts=("lab.example",))


def test_the_page_is_whole_takes_nothing_from_elsewhere_and_names_cannot_end_its_script() -> None:
    async def run() -> None:
        app = create_app(TOKEN, new_analyzer, ("</script><b>",))
        async with TestClient(TestServer(app)) as client:
            page = await client.get("/", params={"token": TOKEN})
            text = await page.text()
            policy = page.headers["Content-Security-Policy"]
        assert "{{" not in text
        assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//", text)
        assert "</script><b>" not in text
        assert "default-src 'none'" in policy
        (nonce,) = set(re.findall(r'nonce="([^"]+)"', text))
        assert f"script-src 'nonce-{nonce}'" in policy

    asyncio.run(run())


# --- the address ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [b"Host: \xff\xfe", b"Host: localhost\r\nOrigin: \xff", b"Host: localhost:\xc3"])
def test_headers_that_are_no_text_are_refused(header: bytes) -> None:
    async def test(client: Client) -> None:
        reader, writer = await asyncio.open_connection(client.host, client.port)
        head = f"GET /?token={quote(TOKEN)} HTTP/1.1\r\n".encode() + header
        writer.write(head + b"\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 403")

    serving(test)


def test_a_busy_port_names_the_setting() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(UserError, match=r"port=\d+ cannot be had .*choose another, as port=\d+"),
        Server("127.0.0.1", other.getsockname()[1]),
    ):
        pass


def test_mistakes_in_host_and_certificate(tmp_path: Path) -> None:
    for host in ("203.0.113.9", "nowhere.invalid", "a..b", "a" * 64):
        with pytest.raises(UserError, match=f"host={host} is no address of this computer"), Server(host, 0):
            pass
    (tmp_path / "a.pem").write_text("nothing")
    file = str(tmp_path / "a.pem")
    with pytest.raises(UserError, match="no certificate"), Server("127.0.0.1", 0, cert=file, key=file):
        pass


def test_settings_that_make_no_sense_together() -> None:
    settings = InferSettings(mode="browser", source="0", output="out", cert="nothing.pem")
    found = "\n".join(settings.contradictions())
    for words in ("source= has no use", "output= has no use", "https needs both", "cert=nothing.pem does not exist"):
        assert words in found
    assert not list(InferSettings(mode="browser", port=0, allow=["a.example"]).contradictions())


def test_the_address_that_is_printed() -> None:
    with Server("0.0.0.0", 0) as server:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{22}", server.address)
        assert not server.is_local
    with suppress(UserError), Server("::", 0) as server:  # this computer may have no IPv6
        assert server.address.startswith("http://[::1]:")
    assert Server("localhost", 0).is_local
    assert Server("127.0.0.1", 0).token != server.token


# --- as a person starts it --------------------------------------------------------------------------------------------


@contextmanager
def infer(*arguments: str) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """infer.py, and the address that it prints."""
    with subprocess.Popen(
        [sys.executable, str(ROOT / "infer.py"), "mode=browser", "port=0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if line.startswith("Open ")), "")
            yield process, line.split()[1]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_in_order_with_a_viewer(number: signal.Signals) -> None:
    with infer("detector=none") as (process, address):

        async def talk() -> int | None:
            wire = address.replace("/?", "/ws?")
            async with aiohttp.ClientSession() as session, session.ws_connect(wire) as viewer:
                answer = await exchange(viewer, jpeg())
                assert sum(answer["faces"][0]["smoothed"].values()) == pytest.approx(1, abs=1e-3)
                process.send_signal(number)
                await viewer.receive(timeout=20)
                return viewer.close_code

        assert asyncio.run(talk()) == 1001
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 0
        assert out == "Ended.\n"


# --- the page in a browser --------------------------------------------------------------------------------------------


def write_y4m(path: Path, pictures: list[np.ndarray], fps: int = 30) -> None:
    """BGR pictures of one size as the uncompressed video that Chromium takes for a camera."""
    height, width = pictures[0].shape[:2]
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{width} H{height} F{fps}:1 Ip A1:1 C420jpeg\n".encode())
        for picture in pictures:
            file.write(b"FRAME\n" + cv2.cvtColor(picture, cv2.COLOR_BGR2YUV_I420).tobytes())


def camera_frame(picture: np.ndarray) -> np.ndarray:
    """640x480, the picture in its middle."""
    scale = min(640 / picture.shape[1], 480 / picture.shape[0])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)[:480, :640]
    frame = np.full((480, 640, 3), 90, np.uint8)
    top, left = (480 - small.shape[0]) // 2, (640 - small.shape[1]) // 2
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame


class Page:
    """A page of headless Chromium, by its DevTools protocol."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self._connection = connection
        self._number = 0

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        await self._connection.send_json({"id": self._number, "method": method, "params": parameters})
        while True:
            answer = await self._connection.receive_json(timeout=30)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    async def evaluate(self, code: str) -> Any:
        answer = await self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def wait_for(self, code: str, seconds: float = 40) -> Any:
        """The value of an expression, once it is true."""
        end = time.monotonic() + seconds
        while not (value := await self.evaluate(code)):
            assert time.monotonic() < end, (code, await self.evaluate("document.body.innerText"))
            await asyncio.sleep(0.1)
        return value


@asynccontextmanager
async def chromium(address: str, camera: Path, profile: Path) -> AsyncIterator[Page]:
    assert CHROMIUM is not None
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
        *("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"),
        *(f"--use-file-for-fake-video-capture={camera}", f"--user-data-dir={profile}", "--remote-debugging-port=0"),
        address,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + 60
        while not (file := profile / "DevToolsActivePort").exists() or len(file.read_text().split()) < 2:
            assert time.monotonic() < end, "Chromium does not start"
            await asyncio.sleep(0.1)
        async with aiohttp.ClientSession() as session:
            while True:
                assert time.monotonic() < end, "Chromium opens no page"
                async with session.get(f"http://127.0.0.1:{file.read_text().split()[0]}/json") as answer:
                    pages = [each for each in await answer.json() if each["type"] == "page"]
                if pages:
                    break
                await asyncio.sleep(0.1)
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as connection:
                page = Page(connection)
                await page.wait_for("document.URL.includes('token') && document.readyState === 'complete'")
                yield page
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(not MEDIA.is_dir(), reason="the shared photographs are not on this machine")
def test_the_page_shows_what_the_network_says(tmp_path: Path) -> None:
    """Of two faces of different expression, as infer.py does, and all that its buttons do."""
    from fer.inference.predictor import Predictor

    predictor = Predictor.load(threads=1)
    seen = []

    async def look(address: str, number: int) -> None:
        frame = camera_frame(read_picture(MEDIA / f"human_stock-emotions-a-{number}.jpg"))
        (wanted,) = predictor(frame)
        seen.append(wanted.label)
        write_y4m(tmp_path / f"{number}.y4m", [frame] * 4)
        async with chromium(address, tmp_path / f"{number}.y4m", tmp_path / f"profile {number}") as page:
            await page.wait_for("frameNumber > 8 && faces.length === 1")
            face = await page.evaluate("faces[0]")
            assert face["emotion"] == wanted.label
            assert face["confidence"] == pytest.approx(wanted.confidence, abs=0.2)
            assert face["track"] == 1
            assert wanted.box is not None
            np.testing.assert_allclose(face["box"], wanted.box, atol=20)
            shown = await page.evaluate("document.querySelector('.face').innerText")
            assert shown.startswith(f"#1 {wanted.label}")
            assert await page.evaluate("rows.length") > 8
            if number == 5:
                await press_everything(page)

    async def press_everything(page: Page) -> None:
        await page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: ' '}))")
        await asyncio.sleep(0.5)
        count = await page.evaluate("frameNumber")
        await asyncio.sleep(0.5)
        assert await page.evaluate("frameNumber") == count  # paused
        await page.evaluate("at('pause').click()")
        await page.wait_for(f"frameNumber > {count}")
        await page.evaluate("window.saved = []; save = async (blob, name) => saved.push([name, await blob.text()])")
        await page.evaluate("at('jsonl').click(); at('csv').click(); at('snapshot').click()")
        await page.wait_for("saved.length === 3")
        files = dict(await page.evaluate("saved"))
        lines = [json.loads(line) for line in files["predictions.jsonl"].splitlines()]
        keys = "source frame time track box score emotion confidence probabilities smoothed"
        assert list(lines[0]) == keys.split()
        table = files["predictions.csv"].splitlines()
        assert table[0].startswith("source,frame,time,track,x,y,w,h,score,emotion,confidence,probability_angry")
        assert len(table) - 1 >= len(lines)
        assert len(table[1].split(",")) == len(table[0].split(","))
        # A photo takes the camera's place, and gives it back.
        await page.evaluate(
            "new Promise((done) => sent.toBlob((blob) => { look(new File([blob], 'my photo.jpg')); done(); }))"
        )
        await page.wait_for("showsPhoto && at('message').textContent.startsWith('my photo.jpg, found in')")
        assert await page.evaluate("faces[0].track") is None
        # One that lies on its side is turned upright, and not sure.
        await page.evaluate(
            "const turned = new OffscreenCanvas(sent.height, sent.width), pen = turned.getContext('2d');"
            "pen.translate(sent.height, 0); pen.rotate(Math.PI / 2); pen.drawImage(sent, 0, 0);"
            "turned.convertToBlob({ type: 'image/jpeg' }).then((blob) => look(new File([blob], 'on its side.jpg')))"
        )
        await page.wait_for("at('message').textContent.startsWith('on its side.jpg, found in')")
        assert await page.evaluate("document.querySelector('.face').innerText.startsWith('uncertain')")
        await page.evaluate("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape'}))")
        await page.wait_for("!showsPhoto && faces.length === 1 && faces[0].track === 1")

    with infer("threads=1") as (_, address):
        for number in (6, 5):
            asyncio.run(look(address, number))
    assert len(set(seen)) == 2
