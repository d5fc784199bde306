"""Predictor of a zero-shot detector, which looks for defects given in words."""

import functools
import hashlib
import io
from collections.abc import Callable, Sequence
from typing import NoReturn

import jax
import numpy as np
from etils import epath

from promptmad_jax.data.preprocess import CLIP_KERNEL, resize_image
from promptmad_jax.evaluation.zero_shot_inference import ZeroShotMapMaker
from promptmad_jax.models.functional import Params
from promptmad_jax.models.zero_shot.prompts import PromptTokens
from promptmad_jax.reporting.type_pictures import paint
from promptmad_jax.runtime.console import warn
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.files import write_bytes_atomic
from promptmad_jax.serving.prediction import Prediction

_FORMAT = 1  # to be raised when the code computes other states from the same inputs
_RANGE = (0.0, 1.0)  # maps are probabilities


def parse_defects(text: str) -> tuple[str, ...]:
    """Splits words such as "scratch, dent,missing cap".

    Raises:
        UserError: a word is empty or repeated.
    """
    words = tuple(" ".join(word.split()) for word in text.split(","))
    if not all(words):
        raise UserError(f"--defects={text!r}: separate the words by commas: scratch,missing cap")
    if len(set(words)) < len(words):
        raise UserError(f"--defects={text!r}: a defect is repeated")
    return words


class ZeroShotPredictor:
    """Scores images of any product.

    Args:
        tokens: (defects in words, what the images show) to the prompts.
        words: K defects to look for.
        cache: folder for the texts' vectors, in files named by a digest of all that they depend
            on; None for no cache.
    """

    class_names = ()

    def __init__(
        self,
        maker: ZeroShotMapMaker,
        params: Params,
        tokens: Callable[[tuple[str, ...], str], PromptTokens],
        words: tuple[str, ...],
        cache: epath.Path | None,
    ):
        self.words = words
        self._maker, self._params = maker, params
        make = lambda name: cached_states(maker, params, tokens(words, name), cache)
        self._states = functools.cache(make)

    def __call__(self, images: Sequence[np.ndarray], class_name: str) -> list[Prediction]:
        """Scores RGB images uint8 [H, W, 3] of any sizes; class_name says what they show.

        `details` holds the most probable `type`, and in `types` the highest probability of each
        word in the image; the picture `types` shows where each is the most probable state.

        Raises:
            UserError: class_name is "auto".
        """
        self.check_class(class_name)
        size = self._maker.detector.config.image_size
        resized = np.stack([resize_image(image, size, CLIP_KERNEL) for image in images])
        every, step = np.ones(len(self.words) + 1, bool), self._maker.batch_size
        chunks = [resized[start : start + step] for start in range(0, len(resized), step)]
        batches = self._maker.batches(self._params, self._states(class_name), every, resized)
        return [
            self._prediction({name: value[i] for name, value in maps.items()}, image, class_name)
            for maps, rows in zip(batches, chunks, strict=True)
            for i, image in enumerate(rows)
        ]

    def adjusted(self, thresholds: Sequence[str], ignored: np.ndarray | None) -> NoReturn:
        """Raises UserError: a zero-shot detector has no classes to set something for."""
        raise UserError("--threshold and --ignore are for trained classes, not zero-shot detectors")

    def check_class(self, class_name: str) -> None:
        """Raises UserError for "auto": a zero-shot detector has no classes to choose among."""
        if class_name == "auto":
            raise UserError(
                "--class_name=auto chooses among the classes of a run; a zero-shot detector has "
                "none: say in words what the images show, or leave it out"
            )

    def _prediction(self, maps: dict, image: np.ndarray, class_name: str) -> Prediction:
        types = dict(zip(self.words, map(float, maps["type_scores"][1:]), strict=True))
        details = {"type": max(types, key=types.get), "types": types}
        pictures = {"types": paint(image, maps["types"].argmax(-1).astype(np.uint8))}
        score, anomaly_map = float(maps["image_score"]), maps["anomaly"]
        return Prediction(class_name, score, anomaly_map, _RANGE, None, details, pictures)


def cached_states(
    maker: ZeroShotMapMaker, params: Params, tokens: PromptTokens, cache: epath.Path | None
) -> np.ndarray:
    """Returns the states [K + 1, d] of the prompts, from `cache` if it holds them."""
    if cache is None:
        return np.asarray(maker.states(params, tokens))
    path = cache / f"states-{_content(maker, params, tokens)}.npy"
    if path.exists():
        try:
            return np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        except (ValueError, EOFError) as error:
            warn(f"{path}: a damaged cache of text states ({error}); computing them again")
    states = np.asarray(maker.states(params, tokens))
    buffer = io.BytesIO()
    np.save(buffer, states)
    try:
        write_bytes_atomic(path, buffer.getvalue())
    except OSError as error:
        warn(f"{path} could not be written: {error}; the next call encodes the texts again")
    return states


def _content(maker: ZeroShotMapMaker, params: Params, tokens: PromptTokens) -> str:
    """Digest of the prompts, the trained text parameters, the text tower and the settings."""
    digest = hashlib.sha256(f"{_FORMAT} {maker.detector.config} {maker.detector.clip}".encode())
    tree = (params.get("text", {}), maker.frozen.text, tuple(tokens))
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        digest.update(jax.tree_util.keystr(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()[:32]
