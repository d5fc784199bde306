"""Which checkpoint is evaluated: the newest, or the best on held-out images."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from promptmad_jax.config import Config, parse
from promptmad_jax.data.image_set import ImageSet
from promptmad_jax.evaluation import calibration as calibration_lib
from promptmad_jax.methods.reconstruction.assembly import Splits
from promptmad_jax.methods.reconstruction.checkpoint_choice import choose_state
from promptmad_jax.methods.reconstruction.evaluation import prompt_makers
from promptmad_jax.runs.restore import restore_state
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.training.state import TrainState

SIZE, SKILLS = 32, {2: 0.1, 4: 1.0, 6: 0.3}


class Skilled:
    """Maps that show what differs from grey the more clearly, the higher the parameter."""

    def bank(self, params, stats):
        return None

    def maps(self, params, stats, bank, images, class_ids):
        skill = float(params["skill"])
        noise = np.random.default_rng(0).random(images.shape[:3], np.float32)
        difference = np.abs(images.astype(np.float32) - 100).max(-1) / 255
        return {"reconstruction": skill * difference + (1 - skill) * noise}


def grey(count):
    return ImageSet(
        images=np.full((count, SIZE, SIZE, 3), 100, np.uint8),
        masks=np.zeros((count, SIZE, SIZE), bool),
        labels=np.zeros(count, np.int32),
        class_ids=np.arange(count, dtype=np.int32) % 2,
        class_names=("bolt", "tile"),
        defect_types=("good",) * count,
        filenames=tuple(f"{i}.png" for i in range(count)),
        original_sizes=np.full((count, 2), SIZE, np.int32),
        fingerprint="",
    )


def state_of(step):
    params = {"skill": jnp.float32(SKILLS[step])}
    return TrainState(jnp.int32(step), params, {}, (), jax.random.key(0))


def bright_squares(keys, images, textures, config):
    """Pseudo-anomalies that compile at once."""
    masks = jnp.zeros(images.shape[:3]).at[:, 8:16, 4:12].set(1)
    return jnp.where(masks[..., None] > 0, 220.0, images), masks


def experiment_of(checkpoint):
    config = Config()
    settings = dataclasses.replace(config.eval, checkpoint=checkpoint, fusion="reconstruction")
    return types.SimpleNamespace(config=dataclasses.replace(config, eval=settings))


@pytest.fixture(autouse=True)
def quick_pseudo_anomalies(monkeypatch):
    monkeypatch.setattr(calibration_lib, "synthesize", bright_squares)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    files = Workdir(str(tmp_path_factory.mktemp("run")))
    checkpoints = files.checkpoints(3)
    for step in SKILLS:
        checkpoints.save(step, state_of(step))
    checkpoints.close()
    return files


def choose(files, checkpoint):
    splits = Splits(grey(4), grey(4), grey(0))
    return choose_state(experiment_of(checkpoint), Skilled(), state_of(6), splits, files)


def test_the_newest_is_taken_unseen(files):
    state, calibration = choose(files, "last")
    assert int(state.step) == 6 and calibration.step == 6
    assert calibration.checkpoint_scores == {} and calibration.source == "held-out"


def test_the_best_on_held_out_images_is_taken(files):
    state, calibration = choose(files, "held_out")
    assert int(state.step) == 4 and float(state.params["skill"]) == 1
    scores = calibration.checkpoint_scores
    assert list(scores) == [2, 4, 6] and scores[2] < scores[6] < scores[4]
    assert calibration.step == 4 and calibration.source == "held-out"
    again = choose(files, "held_out")[1]
    assert again.checkpoint_scores == scores


def test_a_state_that_has_diverged_is_refused_with_the_image(files):
    broken = state_of(6)._replace(params={"skill": jnp.float32(jnp.nan)})
    splits = Splits(grey(4), grey(4), grey(0))
    with pytest.raises(UserError, match=r"0\.png: the reconstruction map is NaN or infinite"):
        choose_state(experiment_of("last"), Skilled(), broken, splits, files)


def test_a_checkpoint_that_is_gone(files):
    with pytest.raises(UserError, match=r"evaluated at step 3, .* no longer kept; run .*evaluate"):
        restore_state(experiment_of("last"), files, 3)


def test_more_prompts_than_images_are_refused():
    splits, experiment = Splits(grey(5), grey(0), grey(0)), experiment_of("last")
    experiment.map_maker = lambda prompts: prompts.shape
    assert prompt_makers(experiment, splits, 1) == []
    assert prompt_makers(experiment, splits, 2) == [(2, SIZE, SIZE, 3)]
    with pytest.raises(UserError, match=r"--prompts=3: the smallest class has 2 .* at most 2"):
        prompt_makers(experiment, splits, 3)


def test_nothing_held_out_is_refused():
    values = to_dict(Config())
    values["eval"]["checkpoint"] = "held_out"
    with pytest.raises(UserError, match=r"data\.holdout is 0, .*set data\.holdout"):
        parse(values)
    values["data"]["holdout"] = 0.1
    assert parse(values).eval.checkpoint == "held_out"
