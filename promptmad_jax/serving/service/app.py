"""The routes of the service."""

import asyncio
import contextlib
import hmac
import html
import math
import time
from collections.abc import AsyncIterator, Callable, Mapping
from importlib import resources

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from starlette.concurrency import run_in_threadpool

from promptmad_jax import __version__
from promptmad_jax.data.image_files import Reading
from promptmad_jax.evaluation.thresholds import Thresholds
from promptmad_jax.runtime.cpu.memory import hand_back
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.serving.prediction import Predictor
from promptmad_jax.serving.result import make_result
from promptmad_jax.serving.service.device_queue import Busy, DeviceQueue, Scored
from promptmad_jax.serving.service.meters import Meters
from promptmad_jax.serving.service.results import RecentResults
from promptmad_jax.serving.service.uploads import Limits, Memory, read_image

_PAGE = {"": ("index.html", "text/html"), "page.css": ("page.css", "text/css")}
_PAGE |= {"page.js": ("page.js", "text/javascript")}
_POLICY = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src "
_POLICY += "'self' blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

# Bytes of an image from which the memory that it took is handed back at once.
_LARGE = 64_000_000

# Sets and keeps the image threshold of a class.
Save = Callable[[str, float], Thresholds]


class Service:
    """A predictor behind HTTP.

    Args:
        reading: how image files are read.
        thresholds: of the classes.
        ready: tells that the predictor is warm.
        token: that requests must bring; "" asks for none, and then nothing can be saved.
        save: None where thresholds cannot be kept.
    """

    def __init__(
        self,
        predictor: Predictor,
        device: DeviceQueue,
        reading: Reading,
        limits: Limits,
        thresholds: Mapping[str, Thresholds],
        ready: Callable[[], bool],
        token: str = "",
        save: Save | None = None,
    ):
        self._predictor, self._device, self._reading = predictor, device, reading
        self._limits, self._token, self._save = limits, token, save
        self._thresholds, self._ready = dict(thresholds), ready
        self._results, self._memory = RecentResults(limits.kept), Memory(limits.held)
        self._meters = Meters(lambda: device.depth)

    def app(self) -> FastAPI:
        """The application; the device's queue ends with it."""

        @contextlib.asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            yield
            await run_in_threadpool(self._device.close)

        app = FastAPI(
            title="promptmad", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan
        )
        guarded = [Depends(self._authorize)]
        app.post("/v1/predict", dependencies=guarded)(self.predict)
        app.get("/v1/classes", dependencies=guarded)(self.classes)
        app.put("/v1/classes/{name}/threshold", dependencies=guarded)(self.set_threshold)
        app.get("/v1/results/{name}/{picture}", dependencies=guarded)(self.picture)
        app.get("/healthz")(lambda: {"status": "alive"})
        app.get("/readyz")(self.readiness)
        app.get("/metrics", include_in_schema=False)(self.metrics)
        app.get("/docs", include_in_schema=False)(lambda: _documentation(app))
        app.get("/{name}", include_in_schema=False)(_page)
        app.get("/", include_in_schema=False)(lambda: _page(""))
        app.middleware("http")(self._count)
        return app

    async def predict(self, request: Request, class_name: str = "auto") -> dict:
        """Scores an image: the request's body, or a file in a form.

        Args:
            class_name: a class, or auto for the one whose normal images are most alike.
        """
        began = time.monotonic()
        try:
            self._predictor.check_class(class_name)
        except UserError as error:
            raise HTTPException(404, str(error)) from error
        if not self._ready():
            raise HTTPException(503, "the detector is being loaded", {"Retry-After": "5"})
        try:
            with self._memory.share() as take:
                image = await read_image(request, self._limits, self._reading, take)
                scored = await asyncio.wrap_future(self._device.submit(image, class_name))
                answer = await run_in_threadpool(self._answer, image, scored)
        except Busy as error:
            wait = str(max(1, math.ceil(error.seconds)))
            raise HTTPException(429, str(error), {"Retry-After": wait}) from error
        if image.nbytes > _LARGE:
            del image, scored
            await run_in_threadpool(hand_back)
        total = time.monotonic() - began
        self._meters.seconds.observe(total)
        self._meters.verdicts.labels(answer["class_name"], answer["verdict"] or "none").inc()
        answer["milliseconds"]["total"] = _milliseconds(total)
        return answer

    def _answer(self, image, scored: Scored) -> dict:
        result = make_result(scored.prediction, *image.shape[:2])
        name = self._results.add(image, scored.prediction)
        return {
            "class_name": result.class_name,
            "verdict": result.verdict,
            "reason": result.reason,
            "score": result.score,
            "threshold": result.threshold,
            "false_alarm_rate": result.false_alarm_rate,
            "novelty": result.novelty,
            "size": list(image.shape[1::-1]),
            "regions": [region._asdict() for region in result.regions],
            "map": f"/v1/results/{name}/map.npy",
            "overlay": f"/v1/results/{name}/overlay.png",
            "milliseconds": {
                "queue": _milliseconds(scored.waited),
                "device": _milliseconds(scored.computed),
            },
        }

    def classes(self) -> dict:
        """The classes with their thresholds and the false-alarm rates these stand for."""
        rows = []
        for name in self._predictor.class_names:
            thresholds = self._thresholds.get(name)
            row = {"name": name}
            if thresholds is not None:
                row |= {"threshold": thresholds.image, "false_alarm_rate": thresholds.rate}
                row |= {"interval": thresholds.interval, "normal_images": thresholds.images}
            rows.append(row)
        return {"classes": rows, "can_save": self._save is not None and bool(self._token)}

    async def set_threshold(self, name: str, threshold: float) -> dict:
        """Sets and keeps the image threshold of a class; needs the service's token."""
        if not self._token:
            raise HTTPException(403, "start the service with a token to change thresholds")
        if self._save is None:
            raise HTTPException(409, "an exported detector keeps its thresholds: calibrate its run")
        if name not in self._thresholds:
            raise HTTPException(404, f"there is no class {name!r} with a threshold")
        if not math.isfinite(threshold):
            raise HTTPException(422, "a threshold is a finite number")
        self._thresholds[name] = await run_in_threadpool(self._save, name, threshold)
        return {"name": name, "threshold": threshold}

    async def picture(self, name: str, picture: str) -> Response:
        """A result's `map.npy` (float32 of the image's size) or `overlay.png`."""
        kept = self._results.get(name)
        if kept is None or picture not in ("map.npy", "overlay.png"):
            raise HTTPException(404, "there is no such result any more")
        if picture == "map.npy":
            return Response(await run_in_threadpool(kept.map_bytes), media_type="application/npy")
        return Response(await run_in_threadpool(kept.overlay_bytes), media_type="image/png")

    def readiness(self) -> dict:
        """200 once the detector is loaded and warm."""
        if not self._ready():
            raise HTTPException(503, "the detector is being loaded")
        return {"status": "ready"}

    def metrics(self) -> Response:
        """Metrics in Prometheus' form."""
        return Response(self._meters.text(), media_type="text/plain; version=0.0.4")

    def _authorize(self, request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if self._token and not hmac.compare_digest(given.encode(), self._token.encode()):
            raise HTTPException(401, "give the token", {"WWW-Authenticate": "Bearer"})

    async def _count(self, request: Request, call_next) -> Response:
        response = await call_next(request)
        self._meters.requests.labels(str(response.status_code)).inc()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Content-Security-Policy"] = _POLICY
        return response


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 2)


def _page(name: str) -> Response:
    if name not in _PAGE:
        raise HTTPException(404, "there is nothing here")
    file, kind = _PAGE[name]
    text = (resources.files("promptmad_jax.serving.service") / "page" / file).read_text("utf-8")
    return Response(text, media_type=kind)


def _documentation(app: FastAPI) -> Response:
    """The routes in words; OpenAPI's usual page would load its parts from elsewhere."""
    rows = []
    for path, methods in app.openapi()["paths"].items():
        for method, route in methods.items():
            words = html.escape(route.get("description") or route.get("summary", ""))
            rows.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2><p>{words}</p>")
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>promptmad API</title>'
    link = '<p><a href="/openapi.json">openapi.json</a> for tools.</p>'
    style = '<link rel="stylesheet" href="/page.css">'
    body = f"{head}{style}<main><h1>API</h1>{link}{''.join(rows)}</main></html>"
    return Response(body, media_type="text/html")
