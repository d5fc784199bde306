"""Measures `promptmad serve --export`: speed, memory, bad requests and the end under load.

    python -m tools.load_service --export=detector --class_name=screw --images=photos \\
        [--what=latency,throughput,memory,bad,stop]

Starts the service on a free port for each of `what`, prints a line per figure. In-process times are
those of `promptmad_jax.load` in this process, image by image or eight at once, from the same bytes.
"""

import collections
import contextlib
import http.client
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from absl import app, flags
from PIL import Image

import promptmad_jax
from promptmad_jax.runtime.cpu.memory import keep_freed_memory
from promptmad_jax.runtime.cpu.vector_width import use_wide_vectors

_EXPORT = flags.DEFINE_string("export", None, "an exported detector", required=True)
_CLASS_NAME = flags.DEFINE_string("class_name", None, "class of the images", required=True)
_IMAGES = flags.DEFINE_string("images", None, "folder of image files", required=True)
_WHAT = flags.DEFINE_list("what", "latency,throughput,memory,bad,stop", "what to measure")
_REQUESTS = flags.DEFINE_integer("requests", 20_000, "requests of the memory's measurement")
_SECONDS = flags.DEFINE_float("seconds", 20, "that each number of clients is measured for")
_TOKEN = "a-token"


class Service:
    """A running service."""

    def __init__(self, *arguments: str):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "promptmad_jax.serve", f"--export={_EXPORT.value}"]
        environment = os.environ | {"PROMPTMAD_TOKEN": _TOKEN}
        self.log = Path(f"/tmp/load_service_{self.port}.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, f"--port={self.port}", *arguments],
                env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        while self._status() != 200:
            if self.process.poll() is not None:
                sys.exit(self.log.read_text())
            time.sleep(0.1)

    def _status(self) -> int | None:
        connection = self.connect()
        with contextlib.closing(connection), contextlib.suppress(OSError):
            connection.request("GET", "/readyz")
            return connection.getresponse().status

    def connect(self) -> http.client.HTTPConnection:
        """A connection that is not open yet."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)

    def memory(self) -> float:
        """MiB that the process holds."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self) -> int:
        """Ends the service and returns its exit status; shows tracebacks of its log."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait()
        log = self.log.read_text()
        if "Traceback" in log:
            print(log[-3000:])
        self.log.unlink()
        return status


def post(connection, body: bytes, token: str = _TOKEN) -> int:
    """Status of the answer to an image."""
    path, headers = (
        f"/v1/predict?class_name={_CLASS_NAME.value}",
        {"Authorization": f"Bearer {token}"},
    )
    connection.request("POST", path, body, headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


def clients(count: int, work: Callable[[int], None]) -> None:
    """Runs work in threads and waits for them."""
    threads = [threading.Thread(target=work, args=(k,)) for k in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def latency(images: list[bytes]) -> Iterator[str]:
    """One image at a time: in-process and by HTTP, in turns."""
    detector, service = promptmad_jax.load(_EXPORT.value), Service()
    connection, times = service.connect(), []
    for k in range(210):
        began = time.perf_counter()
        detector(Image.open(io.BytesIO(images[k % len(images)])), _CLASS_NAME.value)
        middle = time.perf_counter()
        assert post(connection, images[k % len(images)]) == 200
        times.append((middle - began, time.perf_counter() - middle))
    service.stop()
    for name, values in zip(("in-process", "HTTP"), 1000 * np.array(times[10:]).T, strict=True):
        low, middle, high = np.percentile(values, (10, 50, 99))
        yield f"one image {name}: p10 {low:.1f} ms, p50 {middle:.1f} ms, p99 {high:.1f} ms"


def throughput(images: list[bytes]) -> Iterator[str]:
    """Images per second of 1 to 64 clients; of batches of 8 in-process, before and after."""
    detector, service = promptmad_jax.load(_EXPORT.value), Service()

    def batches() -> float:
        done, began = 0, time.perf_counter()
        while time.perf_counter() - began < _SECONDS.value / 2:
            batch = [Image.open(io.BytesIO(images[(done + k) % len(images)])) for k in range(8)]
            detector(batch, _CLASS_NAME.value)
            done += 8
        return done / (time.perf_counter() - began)

    batches()
    for count in (1, 4, 16, 64):
        before, statuses, end = batches(), collections.Counter(), time.monotonic() + _SECONDS.value

        def work(k: int, end=end, statuses=statuses) -> None:
            connection = service.connect()
            while time.monotonic() < end:
                statuses[post(connection, images[k % len(images)])] += 1

        began = time.monotonic()
        clients(count, work)
        rate = statuses[200] / (time.monotonic() - began)
        rates = before, batches()
        yield (
            f"{count} clients: {rate:.1f} images/s, {rate / np.mean(rates):.2f} of the batch rate "
            f"({rates[0]:.1f}, {rates[1]:.1f}); statuses {dict(statuses)}"
        )
    service.stop()


def memory(images: list[bytes]) -> Iterator[str]:
    """Memory over many requests of 16 clients."""
    service, done, lock = Service(), collections.Counter(), threading.Lock()
    held = [service.memory()]

    def work(k: int) -> None:
        connection = service.connect()
        while sum(done.values()) < _REQUESTS.value:
            status = post(connection, images[k % len(images)])
            with lock:
                done[status] += 1
                if sum(done.values()) % (_REQUESTS.value // 10) == 0:
                    held.append(service.memory())

    clients(16, work)
    service.stop()
    yield f"{dict(done)}: MiB {' '.join(f'{value:.0f}' for value in held)}"


def _chunk(kind: bytes, content: bytes) -> bytes:
    whole = kind + content
    return struct.pack(">I", len(content)) + whole + struct.pack(">I", zlib.crc32(whole))


def _png(side: int, rows: int, text: bytes = b"") -> bytes:
    """A grey PNG that claims side x side pixels and holds as many rows, and a compressed text."""
    packer = zlib.compressobj(9)
    pixels = b"".join(packer.compress(bytes(side + 1)) for _ in range(rows)) + packer.flush()
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    note = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(text, 9)) if text else b""
    body = note + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + body


def _unfinished(service: Service, wait: bool) -> int:
    """Sends a part of a body, then waits for the answer or drops the connection (0)."""
    connection = service.connect()
    connection.putrequest("POST", "/v1/predict")
    connection.putheader("Authorization", f"Bearer {_TOKEN}")
    connection.putheader("Content-Length", "1000")
    connection.endheaders(b"begun")
    status = connection.getresponse().status if wait else 0
    connection.close()
    return status


def bad(images: list[bytes]) -> Iterator[str]:
    """A thousand bad requests: their statuses, and the memory around them."""
    service, image, limit = Service("--timeout=2"), images[0], 64_000_000
    send = lambda body, token=_TOKEN: post(service.connect(), body, token)
    bomb, deep = _png(9_000, 9_000), _png(64, 64, bytes(500_000_000))
    kinds = {
        "truncated": lambda: send(image[: len(image) // 2]),
        "huge": lambda: send(bytes(limit + 10_000_000)),
        "wrong type": lambda: send(b"%PDF-1.7 " + bytes(1000)),
        "slow body": lambda: _unfinished(service, True),
        "dropped connection": lambda: _unfinished(service, False),
        "50,000 x 50,000 pixels": lambda: send(_png(50_000, 1)),
        "zip bomb in the text of a PNG": lambda: send(deep),
        "zip bomb in the pixels of a PNG": lambda: send(bomb),
        "wrong token": lambda: send(image, "other"),
    }
    yield f"before: {service.memory():.0f} MiB"
    for name, request in kinds.items():
        statuses, highest = collections.Counter(), [0.0]

        def work(k: int, request=request, statuses=statuses, highest=highest) -> None:
            for _ in range(7):
                try:
                    statuses[request()] += 1
                except OSError as error:
                    statuses[type(error).__name__] += 1
                highest[0] = max(highest[0], service.memory())

        clients(16, work)
        yield f"{name}: {dict(statuses)}, up to {highest[0]:.0f} MiB"
    yield f"then: {send(image)}, {service.memory():.0f} MiB, exit status {service.stop()}"


def stop(images: list[bytes]) -> Iterator[str]:
    """SIGTERM while 16 clients wait for answers; each request has its own connection."""
    service, ended = Service(), collections.Counter()

    def work(k: int) -> None:
        while True:
            connection = service.connect()
            try:
                connection.connect()
            except OSError:
                return
            try:
                ended[post(connection, images[k % len(images)])] += 1
            except OSError as error:
                ended[type(error).__name__] += 1

    timer = threading.Timer(5, service.process.send_signal, (signal.SIGTERM,))
    timer.start()
    clients(16, work)
    yield f"SIGTERM under load: {dict(ended)}, exit status {service.stop()}"


def main(argv) -> None:
    """Prints what was measured."""
    del argv
    keep_freed_memory()  # As the service does, before JAX is imported.
    use_wide_vectors()
    images = [path.read_bytes() for path in sorted(Path(_IMAGES.value).glob("*"))[:64]]
    for name in _WHAT.value:
        for line in globals()[name](images):
            print(line, flush=True)


if __name__ == "__main__":
    app.run(main)
