"""Converts weight files: `python -m promptmad_jax.convert --to=FORMAT --input=PATH --output=PATH`.

`--list` shows the formats. CLIP's weights get a config.json beside them. Pickles (.pth, .pt, .pkl)
are read only where torch is installed, and as tensors alone; nothing in them is run.
"""

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError

_FROM = flags.DEFINE_string("from", "auto", "the format of the input; auto finds it out")
_TO = flags.DEFINE_string("to", "promptmad", "the format of the output; see --list")
_INPUT = flags.DEFINE_string(
    "input",
    "",
    "a .safetensors, .npz or, with torch, pickled file; or the working directory of a run",
)
_OUTPUT = flags.DEFINE_string("output", "", "the .safetensors or .npz file to write")
_ACTIVATION = flags.DEFINE_enum(
    "activation",
    None,
    ["quick_gelu", "gelu"],
    "of CLIP weights without a config.json; OpenAI's have quick_gelu, most of open_clip's gelu",
)
_LIST = flags.DEFINE_bool("list", False, "print the formats of each kind of network, and end")


def main(argv: list[str]) -> None:
    """Reads the flags, then converts."""
    from promptmad_jax.commands.convert import convert, describe_formats

    del argv
    if _LIST.value:
        print(describe_formats())
        return
    if not (_INPUT.value and _OUTPUT.value):
        raise UserError("give --input and --output, or --list")
    print(convert(_INPUT.value, _OUTPUT.value, _FROM.value, _TO.value, _ACTIVATION.value))


if __name__ == "__main__":
    cli.run(main)
