"""Ten thousand hostile requests: each is refused or answered, and the server stays what it was."""

from __future__ import annotations

import base64
import json
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
from PIL import Image

from pipeline.inference.classify import Classifier
from pipeline.inference.connections import HEAD_SECONDS
from pipeline.inference.select import select_artifact
from tests.inference.images import encoded, oriented, pixels, png_bomb, scan_bomb
from tests.inference.served import Served, exchange

pytestmark = pytest.mark.full

REQUESTS = 10_000
CLIENTS = 8
SLOW = 20
ANSWER_SECONDS = 60  # far above what any request may take: a hang, not slowness, fails
GROWTH_MB = 250  # of one process at its peak, with pixels and bodies of 1 M allowed
STATUSES = {"200", "400", "404", "405", "408", "413", "415", "422"}

WHOLE = [
    *(encoded(name) for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP")),
    encoded("JPEG", progressive=True),
    encoded("PNG", pixels().convert("P")),
    encoded("WEBP", lossless=True),
    encoded("GIF", save_all=True, append_images=[Image.new("RGB", (96, 64))]),
    oriented(8),
    *(encoded(name) for name in ("TIFF", "AVIF", "JPEG2000", "PPM")),
    encoded("TIFF", compression="tiff_lzw"),
]


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def text_bomb() -> bytes:
    """A PNG whose comments inflate to gigabytes."""
    whole = encoded("PNG")
    comment = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(50_000_000), 9))
    return whole[:33] + comment * 4 + whole[33:]


def wide_gif() -> bytes:
    """A small GIF whose one frame is larger than all memory."""
    whole = bytearray(encoded("GIF"))
    frame = whole.index(b"\x2c")
    whole[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    return bytes(whole)


@cache
def bombs() -> list[bytes]:
    """Made when they are sent: they take a quarter of a minute."""
    return [
        png_bomb(),
        png_bomb(9000, 9000),
        scan_bomb(3000, 400),
        text_bomb(),
        wide_gif(),
        encoded("WEBP", Image.new("1", (16_383, 16_383))),
        encoded("PNG", Image.new("1", (200_000, 1))),
        encoded("GIF", Image.new("P", (20_000, 20_000))),
        encoded("TIFF", Image.new("1", (40_000, 40_000)), compression="group4"),
        encoded("JPEG2000", Image.new("L", (4_000, 4_000))),
    ]


def mutated(chance: random.Random) -> bytes:
    """An image with bytes changed, cut, doubled or joined with another."""
    data = bytearray(chance.choice(WHOLE))
    for _ in range(chance.choice((1, 2, 8, 64))):
        place = chance.randrange(len(data))
        match chance.randrange(4):
            case 0:
                data[place] = chance.randrange(256)
            case 1:
                data[place : place + chance.randrange(8)] = chance.randbytes(chance.randrange(8))
            case 2:
                data[place : place + 4] = chance.choice((b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff"))
            case _:
                data[place:place] = data[place : place + chance.randrange(64)]
    return bytes(data)


def cut(chance: random.Random) -> bytes:
    data = chance.choice(WHOLE)
    return data[: chance.randrange(len(data))]


def noise(chance: random.Random) -> bytes:
    magic = chance.choice((b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM"))
    return magic + chance.randbytes(chance.randrange(2000))


def wrong_json(chance: random.Random) -> bytes:
    good = json.dumps(
        {"inputs": base64.b64encode(cut(chance)).decode(), "parameters": {"top_k": 3}}
    ).encode()
    place = chance.randrange(len(good))
    values = [None, [], {}, -1, 1e999, "x" * 999, True, {"top_k": 1e99}, {"top_k": "9" * 400}]
    return chance.choice(
        [
            good[:place],
            good[:place] + chance.randbytes(3) + good[place:],
            b"[" * chance.choice((10, 10_000, 900_000)),
            b'{"inputs":' * chance.choice((10, 50_000)),
            b"[" + b"{}," * 300_000 + b"{}]" if chance.random() < 0.02 else b"null",
            json.dumps({"inputs": chance.choice(values)}).encode(),
            json.dumps({"inputs": "aaaa", "parameters": chance.choice(values)}).encode(),
        ]
    )


def post(body: bytes, kind: str = "image/jpeg", path: str = "/") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def in_chunks(body: bytes, chance: random.Random) -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    size = chance.choice((1, 7, 500))
    pieces = [body[i : i + size] for i in range(0, len(body), size)] + [b""]
    return head + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


def broken_http(chance: random.Random) -> bytes:
    """What is not a whole request: the server may close without a word."""
    good = post(encoded("PNG"))
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    lines = [
        chunked + b"zz\r\nabc\r\n0\r\n\r\n",
        chunked + b"fffffffffffffffff\r\nabc",
        chunked + b"3\r\nabcdef\r\n0\r\n\r\n",
        chunked + b"3;" + b"x" * 99_999 + b"\r\nabc\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 400 + b"\r\n\r\nabc",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999\r\n\r\nabc",
        b"POST / HTTP/1.1\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % i for i in range(5000)) + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost : x\r\n folded\r\n\r\n",
        b"POST / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/0.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET \x00\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + chance.randbytes(300),
        chance.randbytes(chance.randrange(1, 500)),
        good[: chance.randrange(len(good))],
        chunked.replace(b"Host", b"Content-Length: 3\r\nHost") + b"0\r\n\r\n" + good,
    ]
    return chance.choice(lines)


def odd_http(chance: random.Random) -> bytes:
    """Requests that are whole, but not what the server is for."""
    body = encoded("PNG")
    kinds = ["", "text/html", "image/", "json", "multipart/form-data", "\u20ac", "a" * 4000]
    paths = ["/../../etc/passwd", "/models/", "/models/%2e%2e", "/%00", "/models/" + "a" * 3000]
    methods = ["GET", "PUT", "DELETE", "HEAD", "OPTIONS", "BREW"]
    match chance.randrange(4):
        case 0:
            kind = chance.choice(kinds).encode("ascii", "ignore").decode()
            return post(b"no image", kind)
        case 1:
            return post(body, path=chance.choice(paths))
        case 2:
            return post(body).replace(b"POST", chance.choice(methods).encode(), 1)
        case _:
            return post(b"", chance.choice(("image/png", "application/json")))


Case = tuple[str, bytes, bool]  # what it is, its bytes, whether the client breaks off


def cases(seed: int) -> list[Case]:
    chance = random.Random(seed)
    makers: dict[str, tuple[int, Callable[[], bytes]]] = {
        "mutated image": (20, lambda: post(mutated(chance))),
        "cut image": (25, lambda: post(cut(chance))),
        "noise": (15, lambda: post(noise(chance))),
        "wrong JSON": (12, lambda: post(wrong_json(chance), "application/json")),
        "chunks": (5, lambda: in_chunks(cut(chance), chance)),
        "odd HTTP": (10, lambda: odd_http(chance)),
        "broken HTTP": (12, lambda: broken_http(chance)),
        "bomb": (1, lambda: post(chance.choice(bombs()))),
        "too large": (1, lambda: post(bytes(chance.choice((1_000_001, 3_000_000))))),
    }
    names = chance.choices(list(makers), [weight for weight, _ in makers.values()], k=REQUESTS)
    return [(name, makers[name][1](), name == "broken HTTP") for name in names]


def verdict(case: Case, answer: bytes) -> str:
    """The status, "closed" where that is right, or words for what is wrong."""
    name, sent, may_close = case
    if not answer:
        return "closed" if may_close else f"{name}: no answer"
    head, _, body = answer.partition(b"\r\n\r\n")
    status = head.split()[1].decode() if head.startswith(b"HTTP/1.1 ") else "?"
    if status not in STATUSES or (status == "200" and b"[" not in body[:1]):
        return f"{name}: {answer[:200]!r}"
    if status != "200" and not sent.startswith(b"HEAD") and b'{"error":' not in body:
        return f"{name}: {answer[:200]!r}"
    return status


@pytest.fixture(scope="module")
def server(released, tmp_path_factory):
    log = tmp_path_factory.mktemp("fuzz") / "log"
    # Twice the clients: who breaks off leaves work behind.
    limits = ("--max-body", "1", "--max-pixels", "1", "--queue", str(2 * CLIENTS))
    with Served(released, log, "--runtime", "int8", *limits) as found:
        yield found


def test_ten_thousand_hostile_requests_are_refused_or_answered(server, released):
    def ask(case: Case) -> str:
        with server.connect(ANSWER_SECONDS) as connection:
            return verdict(case, exchange(connection, case[1], go_away=case[2]))

    right = Classifier(select_artifact(None, "int8", released / "artifacts").path).classify(
        encoded("PNG")
    )
    before = server.memory()
    slow = [server.connect() for _ in range(SLOW)]
    for number, connection in enumerate(slow):  # some say nothing at all
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\n"[: number * 2])
    started = time.monotonic()

    with ThreadPoolExecutor(CLIENTS) as pool:
        verdicts = Counter(pool.map(ask, cases(seed=5)))

    wrong = {words: count for words, count in verdicts.items() if " " in words}
    assert not wrong
    assert sum(verdicts.values()) == REQUESTS
    assert verdicts["200"] > 100  # the mutator leaves some images whole
    assert min(verdicts["400"], verdicts["413"], verdicts["415"], verdicts["422"]) > 50

    for connection in slow:
        connection.settimeout(max(1.0, 3 * HEAD_SECONDS - (time.monotonic() - started)))
        assert connection.recv(1) == b"", "a slow sender is sent away"
        connection.close()
    after = server.memory()
    assert set(after) == set(before), "no worker had to be replaced"
    for pid, memory in after.items():
        assert memory.peak_mb - before[pid].now_mb < GROWTH_MB, (pid, before[pid], memory)
    assert "Traceback" not in server.words()
    answer = server.post(encoded("PNG")).json()
    assert answer == [{"label": p.label, "score": p.score} for p in right]
    assert server.stop() == 0
