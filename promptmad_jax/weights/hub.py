"""Model files by local path or hub id. The only module that imports huggingface_hub."""

import re
from pathlib import Path

from promptmad_jax.runtime.errors import UserError

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\S+))?")


def resolve_file(spec: str, filename: str, setting: str = "weights") -> Path:
    """Finds one file of a model: on disk, in the hub's cache, or by downloading it.

    Args:
        spec: a file, a folder that holds `filename`, or a repository id such as
            `google/efficientnet-b4`, with `@REVISION` for a branch, tag, commit or `refs/pr/N`.
        filename: the wanted file within the folder or repository.
        setting: the config key that holds `spec`, for the message.

    Raises:
        UserError: nothing is there, or the hub cannot be reached; says what to fetch and where
            to put it.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path, filename, setting)
    hub_id = _HUB_ID.fullmatch(spec)
    if not hub_id or path.suffix in (".safetensors", ".npz"):
        raise UserError(
            f"{spec}: no such file or folder; set {setting} to a file, to a folder "
            f"that holds {filename}, or to a hub id of the form owner/name or owner/name@revision"
        )
    return _from_hub(*hub_id.groups(), filename, setting)


def _in_folder(folder: Path, filename: str, setting: str) -> Path:
    path = folder / filename
    if not path.is_file():
        raise UserError(f"{folder}: holds no {filename}; put it there or set {setting} to the file")
    return path


def _from_hub(repository: str, revision: str | None, filename: str, setting: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    # HTTPError is that of the HTTP client in use, which changes between versions of the hub.
    from huggingface_hub.errors import EntryNotFoundError, HTTPError

    cached = try_to_load_from_cache(repository, filename, revision=revision)
    if isinstance(cached, str):
        return Path(cached)
    try:
        return Path(hf_hub_download(repository, filename, revision=revision))
    except (OSError, ValueError, EntryNotFoundError, HTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{setting}={repository}: cannot fetch {filename} ({reason}); download {filename} of "
            f"the Hugging Face repository {repository} on a connected machine, put it into a "
            f"folder here and set {setting} to that folder"
        ) from error
