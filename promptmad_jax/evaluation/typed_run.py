"""One evaluation of a zero-shot detector: its maps measured as others', and type by type."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np

from promptmad_jax.data.typed_images import TypedImages, renumber
from promptmad_jax.evaluation.class_maps import ClassMaps, TypeMaps
from promptmad_jax.evaluation.distributed import this_run
from promptmad_jax.evaluation.multi_type import MultiTypeEvaluator
from promptmad_jax.evaluation.scratch import Scratch
from promptmad_jax.evaluation.typed_maps import TypedMapMaker
from promptmad_jax.models.functional import Params

FILTERED, UNFILTERED = "filtered", "unfiltered"
VOCABULARIES = {
    FILTERED: "each product with the defect types that its own test images have",
    UNFILTERED: "every product with all types of the data set",
}


class TypeFigures:
    """Collects the multi-type figures of both vocabularies."""

    def __init__(self):
        self._evaluators = {name: MultiTypeEvaluator(name, "", this_run()) for name in VOCABULARIES}
        self._measured = dict.fromkeys(VOCABULARIES, False)

    def add(self, vocabulary: str, product: str, scores, masks: np.ndarray, names) -> None:
        """As `MultiTypeEvaluator.add`."""
        self._evaluators[vocabulary].add(product, scores, masks, names)
        self._measured[vocabulary] = True

    def result(self, words: dict[str, str]) -> dict:
        """`multi_type` of metrics.json: `words` (type -> what the prompts call it), and a block a
        vocabulary."""
        blocks = {
            name: evaluator.result() | {"means": VOCABULARIES[name]}
            for name, evaluator in self._evaluators.items()
            if self._measured[name]
        }
        return {"words": words, **blocks}


class _Kept(NamedTuple):
    """What is left of a product's maps when its batches are gone."""

    anomaly: np.ndarray
    scores: np.ndarray
    predicted: np.ndarray


def typed_class_maps(
    maker: TypedMapMaker,
    params: Params,
    states: jax.Array,
    target: TypedImages,
    figures: TypeFigures | None = None,
) -> Iterator[ClassMaps]:
    """Yields the maps of each class that has test images, and measures its types in `figures`.

    The final map is among all states of the data set. Each process gets all maps.
    """
    names = target.taxonomy.names
    for k, name in enumerate(target.images.class_names):
        members = np.flatnonzero(target.images.class_ids == k)
        if not len(members):
            continue
        own = _own_states(target, name)
        kept = _measure(maker, params, states, target.select(members), name, own, figures)
        images = target.images.select(members)
        yield ClassMaps(
            name,
            images.filenames,
            images.defect_types,
            images.labels,
            np.asarray(images.images),
            np.asarray(images.masks),
            {"final": kept.anomaly},
            image_scores=kept.scores,
            types=TypeMaps(names, kept.predicted, target.type_masks[members]),
        )


def _own_states(target: TypedImages, class_name: str) -> np.ndarray:
    """bool [K + 1]: normal and the product's types; all where its images have no known type."""
    own = target.types_of(class_name)
    if not own:
        return np.ones(len(target.taxonomy.names) + 1, bool)
    return np.asarray([True, *(name in own for name in target.taxonomy.names)])


def _measure(
    maker: TypedMapMaker,
    params: Params,
    states: jax.Array,
    product: TypedImages,
    name: str,
    own: np.ndarray,
    figures: TypeFigures | None,
) -> _Kept:
    """Makes the maps of one product, once; the scores of its own states wait on disk."""
    scratch = Scratch()
    columns, anomaly, scores, predicted, own_scores = np.flatnonzero(own), [], [], [], []

    def unfiltered() -> Iterator[np.ndarray]:
        images = product.images.images
        for maps in maker.batches(params, states, own, images):
            anomaly.append(maps["anomaly"])
            scores.append(maps["image_score"])
            own_types = maps["own_types"][..., columns]
            predicted.append(columns[own_types.argmax(-1)].astype(np.uint8))
            own_scores.append(scratch.keep(own_types) if figures is not None else None)
            yield maps["types"]

    try:
        if figures is None:
            for _ in unfiltered():
                pass
        else:
            names = product.taxonomy.names
            figures.add(UNFILTERED, name, unfiltered(), product.type_masks, names)
            if product.types_of(name):
                own_names = tuple(names[k - 1] for k in columns[1:])
                masks = renumber(product.type_masks, names, own_names)
                figures.add(FILTERED, name, own_scores, masks, own_names)
    finally:
        own_scores.clear()
        scratch.close()
    return _Kept(*(np.concatenate(part) for part in (anomaly, scores, predicted)))
