"""Makes promptmad_small.npz: results of a small PromptMAD without a memory.

    python -m tests.goldens.make_promptmad_small

The stored file is from the last version without `memory`; the test makes the arrays anew.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from promptmad_jax.losses.objective import LossConfig, objective
from promptmad_jax.models.backbone.neck import Features
from promptmad_jax.models.functional import Network
from promptmad_jax.models.layers.attention import Text
from promptmad_jax.models.reconstruction.diffusion import DiffusionConfig
from promptmad_jax.models.reconstruction.encoder import ReconstructorConfig
from promptmad_jax.models.reconstruction.promptmad import PromptMAD
from promptmad_jax.models.reconstruction.segmentor import InputSizes, SegmentorConfig
from promptmad_jax.training.reconstruction_step import step_rngs

TEXT_WIDTH, BATCH = 12, 2
SIZES = InputSizes({2: 4, 4: 6, 8: 8, 16: 10}, (4, 4), TEXT_WIDTH)
RECONSTRUCTOR = ReconstructorConfig(
    width=16, heads=2, encoder_layers=1, decoder_layers=1, mlp_width=32
)
SEGMENTOR = SegmentorConfig(
    width=16, fine_width=8, heads=2, denoiser_width=8, denoiser_deep_width=16
)


def arrays() -> dict[str, np.ndarray]:
    """Outputs in inference, and loss and gradients in training."""
    network = Network.create(
        lambda rngs: PromptMAD(RECONSTRUCTOR, SEGMENTOR, DiffusionConfig(steps=3), SIZES, rngs)
    )
    params, stats = jax.jit(network.init)(jax.random.key(0))
    rng = np.random.default_rng(0)
    normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
    features = Features(
        normal(2 * BATCH, 4, 4, 28), normal(2 * BATCH, 8, 8, 8), normal(2 * BATCH, 16, 16, 6)
    )
    prompt, tokens = normal(BATCH, 4, 4, 28), normal(BATCH, 3, TEXT_WIDTH)
    text = Text(tokens, jnp.asarray([[True, True, False]] * BATCH))
    masks = jnp.asarray(rng.random((2 * BATCH, 64, 64)) > 0.9, jnp.float32)

    @jax.jit
    def predict(params, stats):
        model = network.bind(params, stats)
        first = jax.tree.map(lambda x: x[:BATCH], features)
        return model.predict(first, model.encode_prompt(prompt, text), text)

    @jax.jit
    def train(params, stats):
        def loss(params):
            model = network.bind(params, stats)
            outputs = model.train_forward(
                features, prompt, text, masks, step_rngs(jax.random.key(1))
            )
            return objective(outputs, features.neck[:BATCH], masks, LossConfig())[0]

        return jax.value_and_grad(loss)(params)

    outputs = predict(params, stats)
    value, grads = train(params, stats)
    leaves = jax.tree_util.tree_leaves_with_path(grads)
    norms = {jax.tree_util.keystr(path): np.linalg.norm(leaf) for path, leaf in leaves}
    return {
        "reconstruction": np.asarray(outputs.reconstruction),
        "coarse_logit": np.asarray(outputs.coarse_logit),
        "refined_logit": np.asarray(outputs.refined_logit),
        "loss": np.asarray(value),
        "gradients": np.array(sorted(norms)),
        "gradient_norms": np.array([norms[name] for name in sorted(norms)], np.float32),
    }


if __name__ == "__main__":
    np.savez_compressed(Path(__file__).with_name("promptmad_small.npz"), **arrays())
