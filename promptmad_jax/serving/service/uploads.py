"""Images out of requests, within limits of bytes, pixels and time; nothing reaches the disk."""

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from promptmad_jax.data.image_files import ImageFileError, Reading, pixel_count
from promptmad_jax.serving.service.device_queue import Busy

_STATUS = {"not_an_image": 415, "too_large": 413, "unreadable": 422, "bit_depth": 422}
# Of a decoded image: Pillow's copy, the array, and the map of its size.
_BYTES_PER_PIXEL = 12

# Reserves bytes for a request.
Take = Callable[[int], None]


@dataclass(frozen=True)
class Limits:
    """Bounds on requests.

    Attributes:
        bytes: of a body. seconds: until the body has arrived.
        kept: bytes of the newest images that stay in memory with their results.
        held: bytes that requests may hold together until they are answered.
    """

    bytes: int
    seconds: float
    kept: int = 256_000_000
    held: int = 2_000_000_000


class Memory:
    """Memory of all requests together."""

    def __init__(self, limit: int):
        self._limit, self._held, self._lock = limit, 0, threading.Lock()

    @contextlib.contextmanager
    def share(self) -> Iterator[Take]:
        """Yields what reserves bytes for one request, until the context ends.

        It raises `Busy` beyond the limit, unless no other request holds any.
        """
        own = 0

        def take(count: int) -> None:
            nonlocal own
            with self._lock:
                if self._held > own and self._held + count > self._limit:
                    raise Busy(1.0)
                own += count
                self._held += count

        try:
            yield take
        finally:
            with self._lock:
                self._held -= own


async def read_image(request: Request, limits: Limits, reading: Reading, take: Take) -> np.ndarray:
    """The image of a request, uint8 [H, W, 3]: its body, or the first file of a form.

    Raises:
        Busy: other requests hold too much memory.
        HTTPException: 400 dropped, 408 too slow, 413 too large, 415 no image, 422 damaged or
            without an image.
    """
    try:
        body = await asyncio.wait_for(_body(request, limits.bytes, take), limits.seconds)
    except TimeoutError:
        raise HTTPException(408, f"the image did not arrive in {limits.seconds:g} s") from None
    except ClientDisconnect:
        raise HTTPException(400, "the connection was dropped") from None
    if request.headers.get("content-type", "").startswith("multipart/"):
        body = await _first_file(request, body)
    if not body:
        raise HTTPException(422, "no image: send its bytes as the body, or a form with a file")
    try:
        return await run_in_threadpool(_decoded, body, reading, take)
    except ImageFileError as error:
        raise HTTPException(_STATUS[error.kind], error.reason) from error


def _decoded(body: bytes, reading: Reading, take: Take) -> np.ndarray:
    pixels = pixel_count(body)
    if pixels <= reading.max_megapixels * 1e6:  # Else it is refused.
        take(_BYTES_PER_PIXEL * pixels)
    return reading.rgb(body)[0]


async def _body(request: Request, limit: int, take: Take) -> bytes:
    too_large = HTTPException(413, f"the image takes more than {limit / 1e6:g} MB")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
        take(len(part))
        parts.append(part)
    return b"".join(parts)


async def _first_file(request: Request, body: bytes) -> bytes:
    async def stream():
        yield body

    parser = MultiPartParser(request.headers, stream(), max_files=1, max_part_size=len(body))
    parser.spool_max_size = len(body) + 1  # Keeps the file in memory.
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise HTTPException(422, f"a damaged form: {error.message}") from error
    files = [value for _, value in form.multi_items() if hasattr(value, "read")]
    return await files[0].read() if files else b""
