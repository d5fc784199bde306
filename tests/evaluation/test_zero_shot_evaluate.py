"""Evaluation of maps that a made-up detector gives, measured by hand."""

import itertools

import numpy as np
import pytest

from promptmad_jax.data.defect_types.images import with_types
from promptmad_jax.data.defect_types.taxonomy import DefectType, Taxonomy
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.evaluation import zero_shot_evaluate
from promptmad_jax.evaluation.scratch import Scratch
from promptmad_jax.evaluation.zero_shot_evaluate import TypeFigures, zero_shot_class_maps
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.processes import agree
from tests.evaluation.threads import run_processes

SIZE = 4
TAXONOMY = Taxonomy(
    "parts",
    tuple(DefectType(name, (f"a {name}",), (name,)) for name in ("dent", "rust", "hole")),
    (),
    "shipped",
)


def images():
    """Of nut a normal image, a dent and a hole; of bolt a normal image alone."""
    masks = np.zeros((4, SIZE, SIZE), bool)
    masks[2, :2], masks[3, 1:] = True, True
    return ImageSet(
        images=np.zeros((4, SIZE, SIZE, 3), np.uint8),
        masks=masks,
        labels=np.asarray([0, 0, 1, 1], np.int32),
        class_ids=np.asarray([0, 1, 1, 1], np.int32),
        class_names=("bolt", "nut"),
        defect_types=("good", "good", "dent", "hole"),
        filenames=tuple(f"{i}.png" for i in range(4)),
        original_sizes=np.full((4, 2), SIZE, np.int32),
        fingerprint="made up",
    )


class Maker:
    """Sees rust where there is a dent, unless rust is not allowed; two images a batch."""

    def __init__(self, target):
        self._masks = {name: target.type_masks[k] for k, name in enumerate(target.images.filenames)}
        self._order = []

    def batches(self, params, states, own, images):
        self._order.append(own.copy())
        rows = [1, 2, 3] if len(images) == 3 else [0]
        for start in range(0, len(rows), 2):
            yield self._maps([self._masks[f"{row}.png"] for row in rows[start : start + 2]], own)

    def _maps(self, masks, own):
        seen = np.where(np.stack(masks) == 1, 2, np.stack(masks))
        types = 0.1 + 0.6 * np.eye(4, dtype=np.float32)[seen]
        return {
            "types": types,
            "own_types": np.where(own, types, 0),
            "anomaly": 1 - types[..., 0],
            "image_score": types[..., 1:].max((1, 2, 3)),
        }


@pytest.fixture(scope="module")
def evaluated():
    target, figures = with_types(images(), TAXONOMY), TypeFigures()
    maker = Maker(target)
    maps = list(zero_shot_class_maps(maker, {}, None, target, figures))
    return maker, maps, figures.result({"dent": "a dent"})


def test_each_product_has_its_own_words_in_one_vocabulary_alone(evaluated):
    maker, _, result = evaluated
    everything, nut = maker._order
    assert everything.all() and nut.tolist() == [True, True, False, True]
    assert result["words"] == {"dent": "a dent"}
    assert set(result["filtered"]["products"]) == {"nut"}
    assert set(result["unfiltered"]["products"]) == {"bolt", "nut"}


def test_figures_by_hand(evaluated):
    """Unfiltered the dent's 8 pixels are taken for rust; filtered for normal, of equal states."""
    _, _, result = evaluated
    confusion = result["unfiltered"]["products"]["nut"]["confusion"]
    assert confusion["names"] == ["normal", "dent", "rust", "hole"]
    assert confusion["pixels"] == [[28, 0, 0, 0], [0, 0, 8, 0], [0, 0, 0, 0], [0, 0, 0, 12]]
    own = result["filtered"]["products"]["nut"]["confusion"]
    assert own["names"] == ["normal", "dent", "hole"]
    assert own["pixels"] == [[28, 0, 0], [8, 0, 0], [0, 0, 12]]
    hole = result["filtered"]["types"]["hole"]
    assert (hole["auroc"], hole["ap"], hole["f1"]) == (1.0, 1.0, 1.0)
    assert result["unfiltered"]["types"]["dent"]["auroc"] == pytest.approx((40 * 0.5) / 40)


def test_maps_for_the_other_figures_and_the_report(evaluated):
    _, (bolt, nut), _ = evaluated
    assert len(bolt.labels) == 1 and nut.filenames == ("1.png", "2.png", "3.png")
    np.testing.assert_allclose(nut.image_scores, [0.1, 0.7, 0.7], rtol=1e-6)
    np.testing.assert_allclose(nut.maps["final"][1, 0], 0.9, rtol=1e-6)
    assert np.array_equal(nut.types.true[2], np.where(nut.masks[2], 3, 0))
    assert np.array_equal(nut.types.predicted[2], nut.types.true[2])
    assert not nut.types.predicted[1].any()
    assert nut.scores(16) is nut.image_scores and nut.share(0, 2).types is None


def evaluate_together(communicator):
    """As `evaluated`, by one of several processes, all of which are needed for every batch."""
    target, figures = with_types(images(), TAXONOMY), TypeFigures(communicator)
    maker = Maker(target)
    batches = maker.batches

    def meet(*arguments):
        for maps in batches(*arguments):
            agree(communicator, "a batch")
            yield maps

    maker.batches = meet
    list(zero_shot_class_maps(maker, {}, None, target, figures))
    return figures.result({"dent": "a dent"})


def test_processes_measure_the_same(evaluated):
    assert run_processes(2, evaluate_together) == [evaluated[-1]] * 2


def test_a_process_whose_disk_is_full_does_not_leave_the_others_waiting(monkeypatch):
    """One of the two folders of the second product takes two arrays of four."""
    number = itertools.count(1)

    class Small(Scratch):
        def __init__(self):
            super().__init__()
            self._room = 2 if next(number) == 4 else 4

        def keep(self, array):
            self._room -= 1
            if self._room < 0:
                raise UserError("the disk is full")
            return super().keep(array)

    monkeypatch.setattr(zero_shot_evaluate, "Scratch", Small)
    with pytest.raises(UserError, match="the disk is full"):
        run_processes(2, evaluate_together)
