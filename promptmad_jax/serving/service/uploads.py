"""Images out of requests, within limits of bytes, pixels and time; nothing reaches the disk."""

import asyncio
from dataclasses import dataclass

import numpy as np
from fastapi import HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException, MultiPartParser

from promptmad_jax.data.image_files import ImageFileError, Reading

_STATUS = {"not_an_image": 415, "too_large": 413, "unreadable": 422}


@dataclass(frozen=True)
class Limits:
    """Bounds on requests.

    Attributes:
        bytes: of a body. seconds: until the body has arrived.
        kept: bytes of the newest images that stay in memory with their results.
    """

    bytes: int
    seconds: float
    kept: int = 256_000_000


async def read_image(request: Request, limits: Limits, reading: Reading) -> np.ndarray:
    """The image of a request, uint8 [H, W, 3]: its body, or the first file of a form.

    Raises:
        HTTPException: 408 too slow, 413 too large, 415 no image, 422 damaged or without an image.
    """
    try:
        body = await asyncio.wait_for(_body(request, limits.bytes), limits.seconds)
    except TimeoutError:
        raise HTTPException(408, f"the image did not arrive in {limits.seconds:g} s") from None
    if request.headers.get("content-type", "").startswith("multipart/"):
        body = await _first_file(request, body)
    if not body:
        raise HTTPException(422, "no image: send its bytes as the body, or a form with a file")
    try:
        image, _ = await run_in_threadpool(reading.rgb, body)
    except ImageFileError as error:
        raise HTTPException(_STATUS[error.kind], error.reason) from error
    return image


async def _body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(413, f"the image takes more than {limit / 1e6:g} MB")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise too_large
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
