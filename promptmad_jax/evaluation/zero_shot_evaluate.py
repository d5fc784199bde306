"""The evaluation of a zero-shot detector: its maps, measured as a whole and by defect type."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np

from promptmad_jax.data.defect_types.images import DefectTypeImages, renumber
from promptmad_jax.evaluation.class_maps import ClassMaps, TypeMaps
from promptmad_jax.evaluation.metrics.defect_types import DefectTypeEvaluator
from promptmad_jax.evaluation.scratch import Scratch
from promptmad_jax.evaluation.zero_shot_inference import ZeroShotMapMaker
from promptmad_jax.models.functional import Params
from promptmad_jax.runtime.processes import ALONE, Communicator, jointly

FILTERED, UNFILTERED = "filtered", "unfiltered"
VOCABULARIES = {
    FILTERED: "each product with the defect types that its own test images have",
    UNFILTERED: "every product with all types of the data set",
}


class TypeFigures:
    """The metrics by defect type, for both vocabularies.

    Args:
        communicator: the processes, which all add the same.
    """

    def __init__(self, communicator: Communicator = ALONE):
        self.communicator = communicator
        self._evaluators: dict[str, DefectTypeEvaluator] = {}

    def add(self, vocabulary: str, product: str, scores, masks: np.ndarray, names) -> None:
        """As `DefectTypeEvaluator.add`."""
        if vocabulary not in self._evaluators:
            self._evaluators[vocabulary] = DefectTypeEvaluator(vocabulary, self.communicator)
        self._evaluators[vocabulary].add(product, scores, masks, names)

    def result(self, words: dict[str, str]) -> dict:
        """`multi_type` of metrics.json: `words` (type -> its word in the prompts), and the block of
        each vocabulary that has products."""
        blocks = {
            name: self._evaluators[name].result() | {"means": meaning}
            for name, meaning in VOCABULARIES.items()
            if name in self._evaluators
        }
        return {"words": words, **blocks}


class _Made(NamedTuple):
    """A product's maps, and on disk the batches of scores of all states and of its own states."""

    anomaly: np.ndarray
    image_scores: np.ndarray
    predicted: np.ndarray
    all_scores: list
    own_scores: list


def zero_shot_class_maps(
    maker: ZeroShotMapMaker,
    params: Params,
    states: jax.Array,
    target: DefectTypeImages,
    figures: TypeFigures | None = None,
) -> Iterator[ClassMaps]:
    """Yields the maps of each class that has test images, and adds its types to `figures`.

    The final map is among all states of the data set. Each process gets all maps.
    """
    names = target.taxonomy.names
    for k, name in enumerate(target.images.class_names):
        members = np.flatnonzero(target.images.class_ids == k)
        if not len(members):
            continue
        own, product = _own_states(target, name), target.select(members)
        if figures is None:
            made = _make(maker, params, states, own, product, lambda _: None)
        else:
            with _shelf(figures.communicator) as keep:
                made = _make(maker, params, states, own, product, keep)
                _measure(figures, name, product, own, made)
        images = product.images
        yield ClassMaps(
            name,
            images.filenames,
            images.defect_types,
            images.labels,
            np.asarray(images.images),
            np.asarray(images.masks),
            {"final": made.anomaly},
            image_scores=made.image_scores,
            types=TypeMaps(names, made.predicted, product.type_masks),
        )


def _own_states(target: DefectTypeImages, class_name: str) -> np.ndarray:
    """States bool [K + 1] of a product: normal and its types, or all if it has no known type."""
    own = target.types_of(class_name)
    if not own:
        return np.ones(len(target.taxonomy.names) + 1, bool)
    return np.asarray([True, *(name in own for name in target.taxonomy.names)])


@contextmanager
def _shelf(communicator: Communicator) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """Keeps arrays on disk, on every process or, with a UserError, on none."""
    scratch = jointly(communicator, Scratch)
    try:
        yield lambda array: jointly(communicator, lambda: scratch.keep(array))
    finally:
        scratch.close()


def _make(
    maker: ZeroShotMapMaker,
    params: Params,
    states: jax.Array,
    own: np.ndarray,
    product: DefectTypeImages,
    keep: Callable[[np.ndarray], np.ndarray | None],
) -> _Made:
    """Computes the maps of one product; all processes take part in every batch."""
    made, columns = _Made([], [], [], [], []), np.flatnonzero(own)
    for maps in maker.batches(params, states, own, product.images.images):
        own_types = maps["own_types"][..., columns]
        made.anomaly.append(maps["anomaly"])
        made.image_scores.append(maps["image_score"])
        made.predicted.append(columns[own_types.argmax(-1)].astype(np.uint8))
        made.all_scores.append(keep(maps["types"]))
        made.own_scores.append(keep(own_types))
    joined = [np.concatenate(part) for part in made[:3]]
    return _Made(*joined, made.all_scores, made.own_scores)


def _measure(
    figures: TypeFigures, name: str, product: DefectTypeImages, own: np.ndarray, made: _Made
) -> None:
    names = product.taxonomy.names
    figures.add(UNFILTERED, name, made.all_scores, product.type_masks, names)
    if product.types_of(name):
        own_names = tuple(names[k - 1] for k in np.flatnonzero(own)[1:])
        masks = renumber(product.type_masks, names, own_names)
        figures.add(FILTERED, name, made.own_scores, masks, own_names)
