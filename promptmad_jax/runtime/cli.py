"""How every entry point starts and how it fails."""

import os
import re
import sys
from collections.abc import Callable
from typing import NoReturn

from absl import app, logging

from promptmad_jax.runtime.errors import UserError

USER_ERROR_STATUS = 2

# How ml_collections begins the error of a config file that it could not load, raised at first use.
_CONFIG_NOT_LOADED = "Configuration is not available because of an earlier failure to load"


def run(main: Callable[[list[str]], object]) -> NoReturn:
    """Parses the flags, calls `main(argv)` and exits.

    A `UserError`, whether from `main` or from a config file read while the flags are parsed,
    becomes one `error: ...` line on standard error and exit status 2; so do a config file that is
    not there and an override of a key that the config does not have. Other exceptions keep their
    traceback.
    """
    _keep_compiled_programs()
    # Orbax reports every rename at the level of information.
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        _exit(str(error))
    except OSError as error:
        if _CONFIG_NOT_LOADED not in str(error):
            raise
        _exit(f"config file: {' '.join(str(error).split())}")


def _keep_compiled_programs() -> None:
    """Lets JAX keep what it compiles between runs, in the user's cache unless it was told where."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(cache, "promptmad_jax", "xla"))


def _exit(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr, flush=True)
    sys.exit(USER_ERROR_STATUS)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        override = _unknown_override(argv, str(error))
        if override is None:
            raise
        near = re.search(r'Did you mean "([^"]+)"', str(error))
        hint = f"; did you mean {near[1]}?" if near else ""
        raise UserError(f"{override}: the config has no such key{hint}") from error


def _unknown_override(argv: list[str], error: str) -> str | None:
    """The `--config.a.b=VALUE` argument of which a key is quoted in `error`."""
    for argument in argv:
        match = re.match(r"--?\w+\.([\w.]+)", argument)
        if match and any(re.search(rf"\b{key}\b", error) for key in match[1].split(".")):
            return argument
    return None
