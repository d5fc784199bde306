"""Several processes: the same figures as one, to the bit, and no process left waiting."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptmad_jax.evaluation.config import EvalConfig
from promptmad_jax.evaluation.metrics import exact, metrics
from promptmad_jax.evaluation.metrics.ground_truth import GroundTruth
from promptmad_jax.evaluation.protocol import Evaluator
from promptmad_jax.runtime import processes as distributed
from promptmad_jax.runtime.errors import UserError
from tests.evaluation.classes import random_case
from tests.evaluation.shared_work import MODES, classes, evaluate, in_turn
from tests.evaluation.threads import run_processes


def all_on_the_last(one, communicator):
    """Every process but the last has no image of any class."""
    last = communicator.index == communicator.count - 1
    return one.share(0 if last else len(one.labels), 1)


@pytest.fixture(scope="module")
def alone():
    return evaluate(distributed.ALONE, in_turn)


@pytest.mark.parametrize("split", [in_turn, all_on_the_last])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_any_number_of_processes_gives_the_same_bits(alone, count, split):
    for result in run_processes(count, lambda own: evaluate(own, split)):
        assert result == alone
        assert list(result["compat"]) == list(MODES)


def test_arrays_of_any_type_survive_as_bytes():
    own = distributed.JaxProcesses()
    rng = np.random.default_rng(0)
    for values in (
        rng.random(1000),
        rng.random((7, 3), np.float32),
        rng.random(5) > 0.5,
        rng.integers(-(2**63), 2**63 - 1, (300, 3)),
        np.empty((0, 4), np.int64),
    ):
        (back,) = own.gather(values)
        assert back.dtype == values.dtype
        np.testing.assert_array_equal(back, values)
        if values.dtype == np.int64:
            np.testing.assert_array_equal(distributed.sum_counts(own, values), values)


def test_one_process_needs_no_device():
    assert distributed.this_run() is distributed.ALONE


def test_the_modes_have_values(alone):
    for name, block in alone["compat"].items():
        assert None not in block["mean"].values(), name
    assert alone["compat"]["resized_mask_label"]["differ"] == {"screw": ["screw/test/002.png"]}
    assert alone["undefined"]["plain"]["image_ap"] == "no defective image"


@settings(max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=6, max_size=6), st.sampled_from([2, 9, 10**6]))
def test_any_split_gives_the_same_bits(owners, levels):
    maps, masks = random_case(levels, levels, images=6)
    whole = metrics.pixel_metrics(maps, masks)
    owners = np.array(owners)

    def work(own):
        # Backwards, as a process need not have its images in order.
        rows = np.flatnonzero(owners == own.index)[::-1]
        truth = GroundTruth(masks[rows], rows, own)
        scores = truth.images(metrics.image_scores(maps[rows], 4))
        curve = exact.build_curve([truth.pixels(maps[rows])])
        return exact.measure(curve, metrics.pixel_figures(0.3)), scores.tolist()

    expected = whole, metrics.image_scores(maps, 4).tolist()
    assert all(result == expected for result in run_processes(4, work))


def add_first(own, change):
    """Evaluates the first class after `change(share, communicator)`."""
    with Evaluator(EvalConfig(), communicator=own) as evaluator:
        evaluator.add(change(in_turn(classes()[0], own), own))


def test_nan_of_one_process_is_refused_by_all():
    def spoil(share, own):
        if own.index == 1:
            share.maps["final"][0, 3, 3] = np.nan
        return share

    def work(own):
        with pytest.raises(UserError, match=r"tile/test/001\.png: the final map is NaN"):
            add_first(own, spoil)
        return True

    assert run_processes(2, work) == [True, True]


def test_processes_that_disagree_are_refused_by_all():
    def other_class(share, own):
        return share if own.index else in_turn(classes()[1], own)

    def fewer_maps(share, own):
        if own.index:
            del share.maps["coarse"]
        return share

    def whole_class(share, own):
        return classes()[0]

    def work(own):
        for change, words in (
            (other_class, "processes of the evaluation disagree"),
            (fewer_maps, "processes of the evaluation disagree"),
            (whole_class, "an image was given twice"),
        ):
            with pytest.raises(ValueError, match=words):
                add_first(own, change)
        return True

    assert run_processes(2, work) == [True, True]


def test_a_class_without_images_anywhere_is_refused():
    def work(own):
        with pytest.raises(UserError, match="class tile has no test images"):
            add_first(own, lambda share, own: share.share(99, 1))
        return True

    assert run_processes(2, work) == [True, True]


def test_jointly_raises_the_first_error_everywhere():
    def work(own):
        def fail():
            if own.index:
                raise UserError(f"mistake {own.index}")
            return "done"

        with pytest.raises(UserError, match="mistake 1"):
            distributed.jointly(own, fail)
        return distributed.jointly(own, lambda: own.index)

    assert run_processes(3, work) == [0, 1, 2]
