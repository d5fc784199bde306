"""The newest results, kept in memory for their pictures."""

import io
import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from promptmad_jax.serving.picture import draw
from promptmad_jax.serving.prediction import Prediction
from promptmad_jax.serving.result import Result, make_result


@dataclass(frozen=True, eq=False)
class Kept:
    """An image uint8 [H, W, 3] and its prediction."""

    image: np.ndarray
    prediction: Prediction

    def map_bytes(self) -> bytes:
        """The anomaly map of the image's size, float32, as a .npy file."""
        content = io.BytesIO()
        np.save(content, self._result.map)
        return content.getvalue()

    def overlay_bytes(self) -> bytes:
        """The image with its regions, as a PNG."""
        content = io.BytesIO()
        draw(self.image, self.prediction, self._result, marked=False).save(content, "PNG")
        return content.getvalue()

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.image.nbytes + self.prediction.anomaly_map.nbytes

    @property
    def _result(self) -> Result:
        return make_result(self.prediction, *self.image.shape[:2])


class RecentResults:
    """Results by a random name; the oldest go when all take more than `limit` bytes."""

    def __init__(self, limit: int):
        self._limit, self._bytes = limit, 0
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, image: np.ndarray, prediction: Prediction) -> str:
        """Keeps a result and returns its name."""
        name = secrets.token_urlsafe(16)
        with self._lock:
            self._kept[name] = Kept(image, prediction)
            self._bytes += self._kept[name].nbytes
            while self._bytes > self._limit and len(self._kept) > 1:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return name

    def get(self, name: str) -> Kept | None:
        """The result of a name; None if it is unknown or gone."""
        with self._lock:
            return self._kept.get(name)
