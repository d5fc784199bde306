"""Metrics by defect type: exact one-vs-rest ranking of the score of every type at each pixel."""

from collections.abc import Iterable, Sequence

import numpy as np

from promptmad_jax.data.defect_types.taxonomy import UNKNOWN
from promptmad_jax.evaluation.metrics.blocks import Block
from promptmad_jax.evaluation.metrics.exact import Reasons, Values
from promptmad_jax.evaluation.metrics.type_scores import Confusion, TypeScores, argmax_f1, rank
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import ALONE, Communicator, agree, gather_objects, jointly

NORMAL = "normal"
FIGURES = ("auroc", "ap", "f1")
METRICS = (*FIGURES, *(f"types_{name}" for name in FIGURES))
PROTOCOL = {
    "states": "normal and the defect types of the vocabulary, each against the rest, by pixel",
    "macro": "plain mean over the states that have pixels in the product: auroc, ap, f1 with the"
    " normal state, types_auroc, types_ap, types_f1 without",
    "mean": "plain mean over the products where the figure is defined",
    "thresholds": "all distinct scores, exact",
    "ap": "step-wise",
    "f1": "of the argmax over all states, the first of equal ones",
    "unknown_types": "pixels of a defect whose type is not known are left out",
}


class DefectTypeEvaluator:
    """Takes one product (class) at a time; memory is bounded by the scores of one of its states.

    There are K + 1 states, normal first. Each is measured against the rest: AUROC, step-wise AP,
    and F1 of the argmax. Pixels of unknown type are left out. A state without a pixel in a product
    is undefined there; the macro mean is over the others (see `PROTOCOL`).

    If several processes evaluate together, each passes all scores, and they divide the states among
    them; the result is the same on all, and that of one process, to the bit.

    Args:
      vocabulary: a word for the report: "filtered" if each product is scored with its own types,
        "unfiltered" if all are scored with all types.
      communicator: the processes.
    """

    def __init__(self, vocabulary: str, communicator: Communicator = ALONE):
        self._vocabulary, self._communicator = vocabulary, communicator
        self._macro = Block(METRICS)
        self._types: dict[str, Block] = {}
        self._products: dict[str, dict] = {}
        self._confusion = Confusion()

    def add(
        self,
        product: str,
        scores: Iterable[np.ndarray],
        type_masks: np.ndarray,
        type_names: Sequence[str],
    ) -> dict:
        """Measures one product.

        Args:
          scores: batches float [b, H, W, K + 1] of all n images, higher for a more likely state.
          type_masks: integers [n, H, W]: 0 normal, k the type `type_names[k - 1]`, 255 unknown.
          type_names: K names.

        Returns:
          `figures` (of `METRICS`, None where undefined), `states` (name -> `FIGURES`), `undefined`
          (name of a state -> reason), `confusion` (`names`, and `pixels` by true and predicted
          state) and `pixels_of_unknown_type`.

        Raises:
          UserError: a product comes twice, or a score is NaN or infinite.
          ValueError: shapes, ids and names do not fit together, or processes disagree.
        """
        names, truth = (NORMAL, *type_names), np.asarray(type_masks)
        self._check(product, truth, names)
        agree(self._communicator, [product, list(names), list(truth.shape)])
        make = lambda: TypeScores(product, truth, len(names))
        with jointly(self._communicator, make) as store:
            jointly(self._communicator, lambda: store.fill(scores))
            one = self._measure(store, names)
        self._products[product] = one
        self._confusion.add(names, store.pixels)
        reason = next(iter(one["undefined"].values()), "")
        missing = [key for key, value in one["figures"].items() if value is None]
        self._macro.add(product, one["figures"], dict.fromkeys(missing, reason))
        for name, values in one["states"].items():
            self._types.setdefault(name, Block(FIGURES)).add(product, values, {})
        return one

    def result(self) -> dict:
        """The metrics of all products so far, in the form of metrics.json.

        Returns:
          `vocabulary`; `classes`, `mean`, `defined_classes` and `undefined` of the macro means
          (see `Block.result`); `types` (state -> `FIGURES`, the mean over the products where it is
          defined, and their number `defined_classes`); `products` (product -> result of `add`);
          `confusion`, of the pixels of all products; and `protocol`, the choices in words.
        """
        return {
            "vocabulary": self._vocabulary,
            **self._macro.result(),
            "types": {name: _over_products(block) for name, block in self._types.items()},
            "products": dict(self._products),
            "confusion": self._confusion.result(),
            "protocol": PROTOCOL,
        }

    def _check(self, product: str, truth: np.ndarray, names: tuple[str, ...]) -> None:
        if product in self._products:
            raise UserError(f"product {product} was evaluated already; give every product once")
        if len(set(names)) != len(names) or len(names) > UNKNOWN:
            raise ValueError(f"{product}: the states {names} repeat or are too many")
        known = truth[truth != UNKNOWN]
        if truth.ndim != 3 or (known.size and not 0 <= known.min() <= known.max() < len(names)):
            raise ValueError(f"{product}: masks {truth.shape} with ids beyond {names}")

    def _measure(self, store: TypeScores, names: tuple[str, ...]) -> dict:
        undefined = _undefined(names, store.pixels.sum(axis=1))
        defined = [k for k, name in enumerate(names) if name not in undefined]
        mine = defined[self._communicator.index :: self._communicator.count]
        ranked = [[k, *rank(store.column(k), store.truth, k)] for k in mine]
        states: dict[str, Values] = {name: dict.fromkeys(FIGURES) for name in names}
        for part in gather_objects(self._communicator, ranked):
            for k, auroc, ap in part:
                figures = (auroc, ap, argmax_f1(store.pixels, k))
                states[names[k]] = dict(zip(FIGURES, figures, strict=True))
        return {
            "figures": _macro(states, undefined),
            "states": states,
            "undefined": undefined,
            "confusion": {"names": list(names), "pixels": store.pixels.tolist()},
            "pixels_of_unknown_type": int(np.count_nonzero(store.truth == UNKNOWN)),
        }


def _undefined(names: tuple[str, ...], pixels: np.ndarray) -> Reasons:
    """Reasons why states have no metrics, from the number of pixels of each state."""
    if not pixels[1:].any():
        return dict.fromkeys(names, "no pixel of a known defect type")
    if np.count_nonzero(pixels) == 1:
        return dict.fromkeys(names, "all pixels of known type are of one type")
    absent = [name for name, number in zip(names, pixels, strict=True) if not number]
    return {name: f"no pixel of the state {name}" for name in absent}


def _macro(states: dict[str, Values], undefined: Reasons) -> Values:
    defined = [values for name, values in states.items() if name not in undefined]
    types = [values for name, values in states.items() if name not in (*undefined, NORMAL)]
    return {key: _mean(defined, key) for key in FIGURES} | {
        f"types_{key}": _mean(types, key) for key in FIGURES
    }


def _mean(rows: list[Values], key: str) -> float | None:
    return float(np.mean([row[key] for row in rows])) if rows else None


def _over_products(block: Block) -> dict:
    result = block.result()
    return {**result["mean"], "defined_classes": result["defined_classes"]["auroc"]}
