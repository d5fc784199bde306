"""OneNIP and UniAD against torch: checkpoint keys, forward pass, losses, gradients, BatchNorm."""

import importlib.util
import json
import pathlib
from dataclasses import dataclass

import jax
import numpy as np
import pytest

from promptmad_jax.losses.objective import LossConfig, objective
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Network, batch_stats
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.onenip import OneNIP, RefinerConfig
from promptmad_jax.models.reconstruction.outputs import anomaly_maps
from promptmad_jax.models.reconstruction.pairs import interleave
from promptmad_jax.models.reconstruction.uniad import UniAD
from promptmad_jax.models.reconstruction.weights.onenip import (
    join_params_stats,
    read_canonical,
    split_params_stats,
)
from promptmad_jax.training.reconstruction_step import step_rngs

GOLDENS = pathlib.Path(__file__).parents[2] / "goldens"
LOSSES = LossConfig(focal=0.0)
# Of each tensor's largest element; float32 against float64, and some sums nearly cancel.
GRADIENT_TOLERANCE = 1e-4


def script():
    """The module that makes the file; it imports torch."""
    path = GOLDENS / "make_onenip_small.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored():
    with np.load(GOLDENS / "onenip_small.npz") as file:
        values, layout = file["values"], json.loads(str(file["layout"]))
    ends = np.cumsum([int(np.prod(shape)) for _, shape in layout])
    parts = zip(layout, np.split(values, ends[:-1]), strict=True)
    return {name: part.reshape(shape) for (name, shape), part in parts}


def below(arrays, prefix):
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


@dataclass(frozen=True)
class Case:
    """A model with torch's weights, and what torch made of the inputs."""

    inputs: dict
    expected: dict
    network: Network
    params: dict
    stats: dict

    @property
    def features(self):
        return self.inputs["features"]

    def read(self, part):
        """A state dict of the file as nested (params, stats)."""
        trees = jax.eval_shape(self.network.init, jax.random.key(0))
        shapes = {path: leaf.shape for path, leaf in join_params_stats(*trees).items()}
        return split_params_stats(read_canonical(part, shapes, "the golden file"))


def make_case(arrays, name, **sizes):
    config = ReconstructorConfig(dropout=0.0, jitter_probability=0.0, **sizes)
    _, rows, columns, channels = arrays["features"].shape
    grid = (rows, columns)
    width = arrays["onenip/weights/module.reconstruction.seghead.predictor.weight"].shape[1]
    build = {
        "onenip": lambda rngs: OneNIP(config, RefinerConfig(width), channels, grid, rngs),
        "uniad": lambda rngs: UniAD(config, channels, grid, rngs),
    }[name]
    inputs = {key: value for key, value in arrays.items() if "/" not in key}
    case = Case(inputs, below(arrays, f"{name}/"), Network.create(build), {}, {})
    params, stats = case.read(below(case.expected, "weights/"))
    return Case(inputs, case.expected, case.network, params, stats)


SMALL = {
    "width": 8,
    "heads": 2,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "mlp_width": 12,
    "neighbor_size": 2,
}
OTHER = {
    "width": 12,
    "heads": 3,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "mlp_width": 10,
    "neighbor_size": 0,
}


@pytest.fixture(scope="module", params=["onenip", "uniad"])
def case(request):
    return make_case(stored(), request.param, **SMALL)


@pytest.fixture(scope="module", params=["onenip", "uniad"])
def live_case(request):
    pytest.importorskip("torch")
    module = script()
    # Half the grid, which the config's 0 stands for.
    sizes = module.Sizes((5, 4), 7, image_size=24, refiner_width=3, **OTHER | {"neighbor_size": 2})
    return make_case(module.golden(sizes, 1), request.param, **OTHER)


def close(actual, expected, name, tolerance=1e-5):
    error = np.abs(actual - expected).max() / np.abs(expected).max()
    assert actual.shape == expected.shape and error < tolerance, f"{name}: {error}"


def check_inference(case):
    image, prompt = case.features[:2], case.inputs["prompt"]

    @jax.jit
    def run(params, stats):
        model = case.network.bind(params, stats)
        bank = model.encode_prompt(prompt, None)
        outputs = model.predict(Features(image, None, None), bank, None)
        maps = anomaly_maps(outputs, image, case.inputs["masks"].shape[1])
        found = {f"map/{name}": one for name, one in maps.items()}
        found |= {"encoded": model.reconstructor.encode(image), "logit": outputs.coarse_logit}
        return found | {"reconstruction": outputs.reconstruction}

    found = {name: x for name, x in run(case.params, case.stats).items() if x is not None}
    expected = below(case.expected, "predict/")
    assert set(found) == set(expected)
    for name, array in found.items():
        close(array, expected[name], name)


def check_training(case):
    prompt = case.inputs["prompt"]
    # The file has the clean images first and their pseudo-anomalous versions after them.
    rows, masks = (interleave(*np.split(case.inputs[name], 2)) for name in ("features", "masks"))

    def loss(params, stats):
        model = case.network.bind(params, stats)
        rngs = step_rngs(jax.random.key(0))
        features = Features(rows, None, None)
        outputs = model.train_forward(features, prompt, None, masks, rngs)
        total, terms = objective(outputs, case.features[:2], masks, LOSSES)
        return total, (terms, batch_stats(model))

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (_, (terms, stats)), grads = step(case.params, case.stats)
    names = {"mse": "feature", "dice": "dice"}
    for name, value in below(case.expected, "train/").items():
        np.testing.assert_allclose(terms[names[name]], value, rtol=1e-5)
    state = below(case.expected, "gradient/") | below(case.expected, "statistics/")
    expected_grads, expected_stats = case.read(state)
    expected = join_params_stats(expected_grads, expected_stats)
    found = join_params_stats(grads, stats)
    assert set(found) == set(expected)
    largest = max(np.abs(x).max() for x in jax.tree.leaves(expected_grads))
    for name, array in expected.items():
        # Some gradients are zero but for rounding, such as a key's bias: softmax does not see it.
        scale = largest if np.abs(array).max() < 1e-6 * largest else np.abs(array).max()
        error = np.abs(found[name] - array).max() / scale
        assert error < GRADIENT_TOLERANCE, f"{name}: {error}"


def test_inference(case):
    check_inference(case)


def test_training(case):
    check_training(case)


def test_inference_live(live_case):
    check_inference(live_case)


def test_training_live(live_case):
    check_training(live_case)


def test_torch_takes_a_written_checkpoint():
    pytest.importorskip("torch")
    import torch

    from promptmad_jax.models.reconstruction.weights.onenip import write_format

    module, case = script(), make_case(stored(), "onenip", **SMALL)
    written = write_format(join_params_stats(case.params, case.stats), "onenip")
    state = {
        key.removeprefix("module.reconstruction."): torch.tensor(value)
        for key, value in written.items()
    }
    model = module.Reconstruction(module.Sizes(), module.OneNIPDecoder)
    model.load_state_dict(state, strict=True)
    torch.testing.assert_close(
        model.seghead.upconv1[1].running_var, state["seghead.upconv1.1.running_var"]
    )
