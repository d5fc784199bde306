"""Paths as users write them: flags with `~`, absolute forms, and what may be a path."""

import os

from absl import flags

from promptmad_jax.runtime.files import is_local


class _PathParser(flags.ArgumentParser):
    """Expands `~`, which a shell leaves alone behind `--flag=`."""

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)

    def flag_type(self) -> str:
        return "path"


def define_path(name: str, help: str, required: bool = False) -> flags.FlagHolder[str]:
    """Defines a flag that holds a path; empty unless it is given."""
    return flags.DEFINE(_PathParser(), name, None if required else "", help, required=required)


def absolute(path: str) -> str:
    """Returns the absolute path, with `~` expanded and links kept; an address such as `gs://` as
    it is."""
    return os.path.abspath(os.path.expanduser(path)) if is_local(path) else path


def path_or_id(text: str) -> str:
    """Returns an absolute path if `text` is one or exists on this disk, else the text: a hub id."""
    marked = text.startswith(("/", "~", "./", "../"))
    return absolute(text) if marked or os.path.exists(text) else text
