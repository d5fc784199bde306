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
from promptmad_jax.methods.reconstruction import trained
from promptmad_jax.methods.reconstruction.assembly import backbone_weights
from promptmad_jax.methods.reconstruction.splits import Splits, further_prompts
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.runs.restore import restore_weights
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.dataclass_parser import to_dict
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.mesh import MeshConfig, make_mesh
from promptmad_jax.training.state import TrainState

SIZE, SKILLS = 32, {2: 0.1, 4: 1.0, 6: 0.3}


class Skilled:
    """Maps that show what differs from grey the more clearly, the higher the parameter."""

    def __init__(self, programs, params, stats):
        self._skill = float(params["skill"])

    def maps(self, images, class_ids, image_ids):
        skill = self._skill
        noise = np.random.default_rng(0).random(images.shape[:3], np.float32)
        difference = np.abs(images.astype(np.float32) - 100).max(-1) / 255
        return {"reconstruction": skill * difference + (1 - skill) * noise}

    def described_maps(self, images, class_ids, image_ids):
        return self.maps(images, class_ids, image_ids), images[:, 0, 0].astype(np.float32)


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


def assembly_of(checkpoint):
    config = Config()
    settings = dataclasses.replace(config.eval, checkpoint=checkpoint, fusion="reconstruction")
    return types.SimpleNamespace(
        config=dataclasses.replace(config, eval=settings),
        class_names=("bolt", "tile"),
        programs=None,
        mesh=make_mesh(MeshConfig()),
        network=types.SimpleNamespace(init=lambda key: ({"skill": jnp.float32(0)}, {})),
        frozen_weights=backbone_weights(config),
    )


@pytest.fixture(autouse=True)
def quick_pseudo_anomalies(monkeypatch):
    monkeypatch.setattr(calibration_lib, "synthesize", bright_squares)
    monkeypatch.setattr(trained, "MapMaker", Skilled)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    files = Workdir(str(tmp_path_factory.mktemp("run")))
    checkpoints = files.checkpoints(3)
    for step in SKILLS:
        checkpoints.save(step, state_of(step))
    checkpoints.close()
    return files


def choose(files, checkpoint, state=None):
    splits = Splits(grey(4), grey(4), grey(0))
    newest = state or state_of(6)
    detector = TrainedDetector(assembly_of(checkpoint), newest.weights)
    chosen, calibration = detector.choose(splits, files)
    return chosen.weights, calibration


def test_the_newest_is_taken_unseen(files):
    weights, calibration = choose(files, "last")
    assert int(weights.step) == 6 and calibration.step == 6
    assert calibration.checkpoint_scores == {} and calibration.source == "held-out"


def test_the_best_on_held_out_images_is_taken(files):
    weights, calibration = choose(files, "held_out")
    assert int(weights.step) == 4 and float(weights.params["skill"]) == 1
    scores = calibration.checkpoint_scores
    assert list(scores) == [2, 4, 6] and scores[2] < scores[6] < scores[4]
    assert calibration.step == 4 and calibration.source == "held-out"
    again = choose(files, "held_out")[1]
    assert again.checkpoint_scores == scores


def test_a_state_that_has_diverged_is_refused_with_the_image(files):
    broken = state_of(6)._replace(params={"skill": jnp.float32(jnp.nan)})
    with pytest.raises(UserError, match=r"0\.png: the reconstruction map is NaN or infinite"):
        choose(files, "last", broken)


def test_a_checkpoint_that_is_gone(files):
    with pytest.raises(UserError, match=r"evaluated at step 3, .* no longer kept; run .*evaluate"):
        restore_weights(assembly_of("last"), files, 3)


def test_more_prompts_than_images_are_refused():
    config = assembly_of("last").config
    assert further_prompts(config, grey(5), 1) == []
    (prompts,) = further_prompts(config, grey(5), 2)
    assert prompts.shape == (2, SIZE, SIZE, 3)
    with pytest.raises(UserError, match=r"--prompts=3: the smallest class has 2 .* at most 2"):
        further_prompts(config, grey(5), 3)


def test_nothing_held_out_is_refused():
    values = to_dict(Config())
    values["eval"]["checkpoint"] = "held_out"
    with pytest.raises(UserError, match=r"data\.holdout is 0, .*set data\.holdout"):
        parse(values)
    values["data"]["holdout"] = 0.1
    assert parse(values).eval.checkpoint == "held_out"
