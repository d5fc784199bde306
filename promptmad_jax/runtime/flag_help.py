"""The text of `promptmad COMMAND --help`."""

import re
import sys
import textwrap
from collections.abc import Iterable, Iterator
from types import ModuleType

from absl import flags

_VALUES = {
    "string": "...",
    "path": "PATH",
    "multi string": "...",
    "int": "N",
    "float": "X",
    "comma separated list of strings": "A,B,...",
    "config": "NAME.py[:ARGUMENTS]",
}


def describe_command(module: ModuleType) -> str:
    """Returns a command's docstring, its flags, and those of the project's modules it imports."""
    lines = [module.__doc__.rstrip(), "", "Flags:"]
    lines += _describe(flags.FLAGS.get_key_flags_for_module(module))
    for name, shared in flags.FLAGS.flags_by_module_dict().items():
        if name.startswith("promptmad_jax.") and name != module.__name__:
            lines += ["", sys.modules[name].__doc__.partition("\n")[0], *_describe(shared)]
    return "\n".join([*lines, "", "--helpfull shows the flags of absl too."])


def _describe(shown: Iterable[flags.Flag]) -> Iterator[str]:
    for flag in shown:
        # absl puts the choices before the help and a line about repetition after it.
        text = re.sub(r"^<.*?>: |;\s+repeat this option.*", "", flag.help, flags=re.DOTALL)
        yield f"  {_form(flag)}"
        yield textwrap.indent(textwrap.fill(text + _remark(flag), 90), " " * 6)


def _form(flag: flags.Flag) -> str:
    if flag.boolean:
        return f"--[no]{flag.name}"
    choices = getattr(flag.parser, "enum_values", None)
    return f"--{flag.name}={'|'.join(choices) if choices else _VALUES[flag.flag_type()]}"


def _remark(flag: flags.Flag) -> str:
    if any("other than None" in validator.message for validator in flag.validators):
        return " (required)"
    return f" (default: {flag.default_as_str.strip(chr(39))})" if flag.default else ""
