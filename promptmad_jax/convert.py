"""Converts weight files to the project's formats and back.

    promptmad convert --input=tf_efficientnet_b4.safetensors --output=b4.safetensors
    promptmad convert --to=onenip --input=runs/mine --output=onenip.safetensors
    promptmad convert --list

--list shows the formats. CLIP's weights get a config.json beside them. Pickles (.pth, .pt, .pkl)
are read only where torch is installed, and as tensors alone; nothing in them is run.
"""

from absl import flags

from promptmad_jax.runtime import cli
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.paths import define_path

_FROM = flags.DEFINE_string("from", "auto", "format of the input; auto recognizes it")
_TO = flags.DEFINE_string("to", "promptmad", "format of the output; see --list")
_INPUT = define_path(
    "input",
    "a .safetensors, .npz, .msgpack or (with torch) pickled file, or a run's working directory",
)
_OUTPUT = define_path("output", "the .safetensors, .npz or .msgpack file to write")
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace a file that exists")
_ACTIVATION = flags.DEFINE_enum(
    "activation",
    None,
    ["quick_gelu", "gelu"],
    "activation of CLIP weights without a config.json: OpenAI's use quick_gelu, most of "
    "open_clip's gelu",
)
_BACKBONE_WEIGHTS = define_path(
    "backbone_weights", "the weights of a run's backbone (file, folder or hub id), if they moved"
)
_LIST = flags.DEFINE_bool("list", False, "print the formats of each kind of network")


def main(argv: list[str]) -> None:
    """Reads the flags, then converts."""
    from promptmad_jax.commands.convert import check_target, convert, describe_formats

    del argv
    if _LIST.value:
        print(describe_formats())
        return
    if not (_INPUT.value and _OUTPUT.value):
        raise UserError("give --input and --output, or --list")
    check_target(_OUTPUT.value, _INPUT.value, _OVERWRITE.value)
    formats = _FROM.value, _TO.value, _ACTIVATION.value
    print(convert(_INPUT.value, _OUTPUT.value, *formats, _BACKBONE_WEIGHTS.value))


if __name__ == "__main__":
    cli.run(main)
