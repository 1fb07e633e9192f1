"""The HTTP interface: image classification as hub inference endpoints have it, and operation."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.contract.contract import Contract
from pipeline.errors import EdgeVitError
from pipeline.inference.admission import WAIT_SECONDS, Admission, busy
from pipeline.inference.metrics import Metrics
from pipeline.inference.requests import Classification, Failure, Job, Label, Parameters, Reply
from pipeline.inference.select import Chosen
from pipeline.inference.workers import NoneFree, Workers

LOG = logging.getLogger("edge_vit")
PAGE_FILE = "page.html"
PAGE_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
        "img-src blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Vary": "Accept",
}
LOADING_SECONDS = 5
# Content types of an encoded image: curl --data-binary says it is a form.
IMAGE_TYPES = ("", "application/octet-stream", "application/x-www-form-urlencoded")
JSON = "application/json"
FAILURES: dict[int | str, dict[str, Any]] = {
    400: {"description": "no body, wrong JSON or base64, a damaged image"},
    408: {"description": "the body came too slowly"},
    413: {"description": "too many bytes or pixels"},
    415: {"description": "not an image in a known format, or another kind of body"},
    422: {"description": "wrong parameters, or an image that takes too long"},
    503: {"description": "loading, or too many requests; Retry-After says when to come back"},
}
_SCHEMA = Classification.model_json_schema()
_SCHEMA["properties"]["parameters"] = Parameters.model_json_schema()
del _SCHEMA["$defs"]  # references in it would mean the whole document's
BODY = {
    "requestBody": {
        "required": True,
        "description": "an encoded image, or JSON with one in base64",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            JSON: {"schema": _SCHEMA},
        },
    }
}


class Service:
    """The state of one server: its workers, its admission control, and whether it is loaded."""

    def __init__(
        self, chosen: Chosen, workers: Workers, admission: Admission, stopping: Callable[[], bool]
    ) -> None:
        self.chosen, self.workers = chosen, workers
        self.admission, self.stopping = admission, stopping
        self.contract: Contract | None = None  # the file's own, once it is loaded
        self.failure: EdgeVitError | None = None  # why it cannot be
        self.metrics = Metrics(admission, ready=lambda: self.ready)

    @property
    def ready(self) -> bool:
        """Whether the model is loaded, a worker lives, and the server is not stopping."""
        return self.contract is not None and self.workers.alive and not self.stopping()

    async def load(self, stop: Callable[[], None]) -> None:
        """Load the model in all workers; if that fails, keep the error and stop the server."""
        try:
            self.contract = Contract.from_json(await self.workers.start())
            LOG.info("ready: %s, %d workers", self.chosen.path.name, self.workers.count)
        except Exception as error:  # a server that can never be ready must not look as if it could
            if not isinstance(error, EdgeVitError):
                error = EdgeVitError(f"a worker did not start: {error!r}")
            self.failure = error
            stop()

    async def classify(self, request: Request) -> JSONResponse:
        """Answer one request: its labels, or ``error`` with the status that says whose fault.

        Raises:
            HTTPException: the request is refused before a worker sees it.
        """
        is_json = _is_json(request.headers.get("content-type", ""))
        body = await self.admission.body(request.headers, request.stream())
        if self.contract is None:
            raise busy(f"{self.chosen.release} is being loaded", LOADING_SECONDS)
        with self.admission.slot():
            answer = await self._ask(request, Job(body, is_json))
        content = answer.content if answer.status == 200 else {"error": answer.content}
        return JSONResponse(content, answer.status)

    async def _ask(self, request: Request, job: Job) -> Reply:
        """Ask a worker, unless the client goes away before one is free."""
        asked = asyncio.create_task(self.workers.ask(job, WAIT_SECONDS))
        gone = asyncio.create_task(_gone(request))
        try:
            await asyncio.wait([asked, gone], return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                asked.cancel()
                await asyncio.wait([asked])
                raise ClientDisconnect
            return asked.result()
        except NoneFree:
            seconds = self.admission.wait_seconds()
            raise busy(f"no worker was free in {WAIT_SECONDS:g} s", seconds) from None
        finally:
            gone.cancel()
            asked.cancel()

    def info(self) -> dict[str, Any]:
        """Return what is served: release, runtime, file and its hash, workers, contract."""
        contract = self.contract or self.chosen.contract
        return {
            "release": self.chosen.release,
            "runtime": self.chosen.runtime,
            "file": self.chosen.path.name,
            "sha256": self.chosen.sha256,
            "workers": self.workers.count,
            "queue": self.admission.queue,
            "contract": contract.to_dict(),
        }


def build(service: Service, stop: Callable[[], None]) -> ASGIApp:
    """Return the application; ``stop`` is called where the model cannot be loaded."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load(stop))
        yield
        loading.cancel()
        service.workers.close()

    app = FastAPIOffline(
        title=f"edge-vit: {service.chosen.release}",
        version=service.chosen.contract.version,
        description="Image classification, as hub inference endpoints answer it.",
        lifespan=lifespan,
        responses={code: entry | {"model": Failure} for code, entry in FAILURES.items()},
    )
    _add_classification(app, service)
    _add_operation(app, service)
    for kind in (HTTPException, RequestValidationError, ClientDisconnect, Exception):
        app.add_exception_handler(kind, _failed)
    return Wrapped(app, service)


def _add_classification(app: FastAPI, service: Service) -> None:
    @app.post("/", response_model=list[Label], openapi_extra=BODY, summary="Classify an image")
    async def classify(request: Request) -> JSONResponse:
        return await service.classify(request)

    @app.post(
        "/models/{name:path}",
        response_model=list[Label],
        openapi_extra=BODY,
        summary="Classify an image, with the model's name in the path",
    )
    async def classify_by_name(name: str, request: Request) -> JSONResponse:
        names = (service.chosen.release, service.chosen.contract.name)
        if name not in names:
            raise HTTPException(404, f"this server has the model {names[0]} only")
        return await service.classify(request)


def _add_operation(app: FastAPI, service: Service) -> None:
    page = resources.files(__package__).joinpath(PAGE_FILE).read_text(encoding="utf-8")

    @app.get("/", include_in_schema=False)
    async def index(request: Request) -> HTMLResponse:
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(405, "send the image with POST", {"Allow": "POST"})
        return HTMLResponse(page, headers=PAGE_HEADERS)

    @app.get("/metrics", summary="Counters and times in Prometheus's text format")
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)

    @app.get("/health", summary="The server lives")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready", summary="The model is loaded and warm, and a worker lives")
    async def ready() -> dict[str, str]:
        if not service.ready:
            loading = "loading" if service.contract is None else "replacing its workers"
            state = "stopping" if service.stopping() else loading
            raise busy(f"the server is {state}", LOADING_SECONDS)
        return {"status": "ready"}

    @app.get("/info", summary="What is served: release, file, contract")
    async def info() -> dict[str, Any]:
        return service.info()


async def _gone(request: Request) -> None:
    """Return when the client's connection is closed; the body was read before."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _is_json(content_type: str) -> bool:
    """Whether the body is JSON; otherwise it is an encoded image.

    Raises:
        HTTPException: 415, the client says that it is something else.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind != JSON and kind not in IMAGE_TYPES and not kind.startswith("image/"):
        raise HTTPException(415, f"send an encoded image or {JSON}, not {kind[:100]}")
    return kind == JSON


async def _failed(_: Request, error: Exception) -> JSONResponse:
    """Every error in one form."""
    if isinstance(error, HTTPException):
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)
    if isinstance(error, ClientDisconnect):
        return JSONResponse({"error": "the client went away"}, 400)  # for the log
    if isinstance(error, RequestValidationError):
        return JSONResponse({"error": str(error.errors()[0]["msg"])}, 422)
    return JSONResponse({"error": "the server failed; its log says why"}, 500)


class Wrapped:
    """Logs each request with status and time; closes connections once the server is stopping."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI servers ask for it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._service.stopping():
                    message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        finally:
            client = (scope["client"] or ("-",))[0]
            path = scope["raw_path"].decode("ascii", "replace")  # still encoded: one line
            elapsed_ms = (time.perf_counter() - started) * 1e3
            if scope["method"] == "POST":
                self._service.metrics.record(status, elapsed_ms / 1e3)
            words = (client, scope["method"], path, status or "-", elapsed_ms)
            LOG.info("%s %s %s %s %.1f ms", *words)
