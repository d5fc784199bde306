"""The exception for mistakes that a user can correct."""


class UserError(Exception):
    """A mistake in an input, a flag or the environment.

    The message names the file or setting, the reason and the way out. Entry points print it as one
    `error: ...` line and exit with status 2; see `promptmad_jax.runtime.cli.run`.
    """
