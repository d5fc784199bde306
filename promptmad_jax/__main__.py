"""Runs one command: `promptmad COMMAND ...`, or `python -m promptmad_jax COMMAND ...`."""

import ast
import difflib
import importlib
import sys
from pathlib import Path

import promptmad_jax
from promptmad_jax.runtime import interrupts

COMMANDS = tuple(
    (
        "prepare train evaluate predict enroll retrain calibrate drift export serve report compare "
        "convert benchmark"
    ).split()
)


def main() -> None:
    """Runs the command that the first argument names, with the others as its flags."""
    interrupts.listen()
    with interrupts.quiet_pipe():
        _run(*(sys.argv[1:] or ["--help"]))


def _run(command: str, *arguments: str) -> None:
    if command in ("--help", "-h"):
        print(_overview())
    elif command == "--version":
        print(f"promptmad_jax {promptmad_jax.__version__}")
    elif command not in COMMANDS:
        near = difflib.get_close_matches(command, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else f"the commands are {', '.join(COMMANDS)}"
        sys.exit(_fail(f"{command}: no such command; {hint}"))
    else:
        sys.argv = [f"promptmad {command}", *arguments]
        module = importlib.import_module(f"promptmad_jax.{command}")
        from promptmad_jax.runtime import cli

        cli.run(module.main)


def _overview() -> str:
    """The commands, one per line, described by their docstrings; none of them is imported."""
    lines = [promptmad_jax.__doc__.strip(), "", "  promptmad COMMAND --flag=value ...", ""]
    lines += [f"  {command:<10} {_first_line(command)}" for command in COMMANDS]
    return "\n".join([*lines, "", "`promptmad COMMAND --help` shows the flags of a command."])


def _first_line(command: str) -> str:
    source = Path(__file__).with_name(f"{command}.py").read_text(encoding="utf-8")
    return ast.get_docstring(ast.parse(source)).partition("\n")[0]


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
