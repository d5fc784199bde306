"""Dense layers and convolutions that the reconstructor and the segmentor share."""

import jax
import jax.numpy as jnp
from flax import nnx

from promptmad_jax.models.layers.cpu_products import dense, dot_general
from promptmad_jax.models.layers.dropout import dropout_seed, relu_dropout
from promptmad_jax.models.layers.pixel_shuffle import depth_to_space
from promptmad_jax.runtime.key_streams import KeyStreams

xavier = nnx.initializers.xavier_uniform()


def linear(features_in: int, features_out: int, rngs: KeyStreams, kernel_init=xavier) -> nnx.Linear:
    """A dense layer with zero bias, its kernel Xavier-uniform by default."""
    return nnx.Linear(
        features_in, features_out, kernel_init=kernel_init, dot_general=dot_general, rngs=rngs
    )


def conv(
    features_in: int,
    features_out: int,
    rngs: KeyStreams,
    *,
    strides: int = 1,
    use_bias: bool = True,
) -> nnx.Conv:
    """A 3x3 convolution, padded by one pixel on each side (torch's `padding=1`)."""
    return nnx.Conv(
        features_in,
        features_out,
        (3, 3),
        strides=strides,
        padding=((1, 1), (1, 1)),
        use_bias=use_bias,
        kernel_init=xavier,
        rngs=rngs,
    )


class Mlp(nnx.Module):
    """Two dense layers: `activation(x W1 + b1) W2 + b2`, the hidden one the wider."""

    def __init__(self, width: int, hidden: int, rngs: KeyStreams, activation=jax.nn.relu):
        self.lin1, self.lin2 = linear(width, hidden, rngs), linear(hidden, width, rngs)
        self.activation = activation

    def __call__(
        self, x: jax.Array, rate: float = 0.0, rngs: KeyStreams | None = None
    ) -> jax.Array:
        """Dropout between the layers, for ReLU alone."""
        x = self.lin1(x)
        if rngs is None or rate == 0:
            x = self.activation(x)
        elif self.activation is jax.nn.relu:
            x = relu_dropout(x, rate, dropout_seed(rngs))
        else:
            raise ValueError("Mlp: dropout is for ReLU")
        return self.lin2(x)


def conv_transpose_2x2(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """A 2x2 transposed convolution with stride 2: [B, h, w, K] to [B, 2h, 2w, O].

    Windows do not overlap, so it is one matrix product and a reshape:
    y[2r+i, 2c+j, o] = sum_k x[r, c, k] kernel[k, i, j, o] + bias[o].
    """
    y = depth_to_space(dense(x, kernel.reshape(len(kernel), -1)))
    return y + bias[None, None, None, :]


class ConvTranspose2x2(nnx.Module):
    """`conv_transpose_2x2` with its parameters, kernel [K, 2, 2, O]."""

    def __init__(self, features_in: int, features_out: int, rngs: KeyStreams):
        # Xavier's fans as torch counts them for a transposed kernel: out * 4 and in * 4.
        bound = (6 / (4 * (features_in + features_out))) ** 0.5
        shape = (features_in, 2, 2, features_out)
        self.kernel = nnx.Param(
            jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
        )
        self.bias = nnx.Param(jnp.zeros(features_out))

    def __call__(self, x: jax.Array) -> jax.Array:
        return conv_transpose_2x2(
            x, self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)
        )
