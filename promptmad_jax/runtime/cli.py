"""Start, help and errors of every command."""

import re
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from absl import app, flags, logging

from promptmad_jax.runtime import interrupts
from promptmad_jax.runtime import process_exit as leaving
from promptmad_jax.runtime.compilation_cache import keep_compiled_programs
from promptmad_jax.runtime.cpu.memory import keep_freed_memory
from promptmad_jax.runtime.cpu.vector_width import use_wide_vectors
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.flag_help import describe_command
from promptmad_jax.runtime.full_disk import refused_write
from promptmad_jax.runtime.platforms import unavailable_platform

_ELSEWHERE = "if a connection was lost, another process died first, and its own log says why"


def run(main: Callable[[list[str]], object]) -> NoReturn:
    """Parses the flags, calls `main(argv)` and exits.

    The module of `main` is the command: `--help` shows its docstring and its flags.

    A `UserError`, whether from `main` or from a configuration file read while the flags are parsed,
    becomes one `error: ...` line on standard error and exit status 2, and so does a mistake in the
    flags. A signal becomes one line too, see `interrupts`; a closed pipe ends the command quietly.
    Other exceptions keep their traceback. One of several processes does not wait for the others
    when it fails.
    """
    with interrupts.quiet_pipe():
        try:
            interrupts.listen()
            _run(main)
        except interrupts.Interrupted as error:
            _say(f"{leaving.process_name()}: {error}" if leaving.process_name() else str(error))
            leaving.leave_at_once(error.status)


def _run(main: Callable[[list[str]], object]) -> NoReturn:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(describe_command(sys.modules[main.__module__]))
        sys.exit()
    keep_compiled_programs()
    keep_freed_memory()
    use_wide_vectors()
    # Orbax reports every rename at the level of information.
    logging.set_verbosity(logging.WARNING)
    try:
        app.run(main, flags_parser=_parse_flags)
    except UserError as error:
        _exit(str(error))
    except interrupts.Preempted as error:
        if leaving.process_name():
            raise  # The others are ending too, and wait for each other.
        # Threads of the runtime may still compute, which an orderly exit does not survive.
        leaving.leave_at_once(error.code)
    except BrokenPipeError:  # See `quiet_pipe`.
        raise
    except Exception as error:
        if (reason := unavailable_platform(error) or refused_write(error)) is not None:
            _exit(reason)
        if not leaving.process_name():
            raise
        traceback.print_exc()
        _say(f"error: {leaving.process_name()} failed, as shown above; {_ELSEWHERE}")
        leaving.leave(1)


def _exit(message: str) -> NoReturn:
    where = leaving.process_name()
    _say(f"error: {where}: {message}" if where else f"error: {message}")
    leaving.leave(leaving.USER_ERROR_STATUS)


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def _parse_flags(argv: list[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        raise UserError(_flag_fault(str(error))) from error
    except (AttributeError, KeyError) as error:
        override = _unknown_override(argv, str(error))
        if override is None:
            raise
        near = re.search(r'Did you mean "([^"]+)"', str(error))
        hint = f"; did you mean {near[1]}?" if near else ""
        raise UserError(f"{override}: the config has no such key{hint}") from error


def _flag_fault(error: str) -> str:
    """Joins absl's report on the flags into one line."""
    missing = re.findall(r"Flag (--\w+) must have a value other than None", error)
    error = " ".join(error.split()).replace(" ?", "?")
    fault = f"give {' and '.join(missing)}" if missing else error
    return f"{fault}; --help shows the flags"


def _unknown_override(argv: list[str], error: str) -> str | None:
    """The `--config.a.b=VALUE` argument of which a key is quoted in `error`."""
    for argument in argv:
        match = re.match(r"--?\w+\.([\w.]+)", argument)
        if match and any(re.search(rf"\b{key}\b", error) for key in match[1].split(".")):
            return argument
    return None
