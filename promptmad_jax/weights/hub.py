"""Model files by local path or hub id. The only module that imports huggingface_hub."""

import re
from pathlib import Path

from promptmad_jax.runtime.console import say
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import pickles
from promptmad_jax.weights.files import SUFFIXES

_HUB_ID = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(\S+))?")


def resolve_file(spec: str, *names: str, setting: str) -> Path:
    """Finds a file of a model: on disk, in the hub's cache, or by downloading it.

    Args:
        spec: a file, a folder, or a repository id such as `google/efficientnet-b4`, with
            `@REVISION` for a branch, tag, commit or `refs/pr/N`.
        names: the file's possible names in the folder or repository; the first that exists wins.
        setting: the config key that holds `spec`, for messages.

    Raises:
        UserError: nothing is there, or the hub cannot be reached; says what to fetch and where
            to put it.
    """
    path = Path(spec).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _in_folder(path, names, setting)
    hub_id = _HUB_ID.fullmatch(spec)
    if hub_id is None or (hub_id[2] is None and _looks_like_path(path)):
        raise UserError(
            f"{spec}: no such file or folder; set {setting} (of a run: --backbone_weights) to a "
            f"file, to a folder that holds {' or '.join(names)}, or to a hub id: owner/name, or "
            "owner/name@main where a folder `owner` exists here"
        )
    return _from_hub(hub_id[1], hub_id[2], names, setting)


def _looks_like_path(path: Path) -> bool:
    return path.suffix in (*SUFFIXES, *pickles.SUFFIXES) or Path(path.parts[0]).is_dir()


def _in_folder(folder: Path, names: tuple[str, ...], setting: str) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise UserError(
        f"{folder}: holds no {' or '.join(names)}; put it there or set {setting} to the file"
    )


def _from_hub(repository: str, revision: str | None, names: tuple[str, ...], setting: str) -> Path:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    # HTTPError is that of the HTTP client in use, which changes between versions of the hub.
    from huggingface_hub.errors import GatedRepoError, HTTPError, RemoteEntryNotFoundError
    from huggingface_hub.utils.logging import set_verbosity_error

    for name in names:
        cached = try_to_load_from_cache(repository, name, revision=revision)
        if isinstance(cached, str):
            return Path(cached)
    say(f"fetching {repository} from the Hugging Face hub")
    set_verbosity_error()  # Retries without a network are reported once, by the error below.
    for name in names:
        try:
            return Path(hf_hub_download(repository, name, revision=revision))
        except RemoteEntryNotFoundError:
            continue
        except GatedRepoError as error:
            raise UserError(
                f"{setting}={repository}: its owner asks for an agreement: accept the licence on "
                f"the page of {repository} at Hugging Face, then `hf auth login` with your token"
            ) from error
        except (OSError, ValueError, HTTPError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(
                f"{setting}={repository}: cannot fetch {name} ({reason}); download "
                f"{' or '.join(names)} of the Hugging Face repository {repository} on a connected "
                f"machine, put it into a folder here and set {setting} (of a run: "
                "--backbone_weights) to that folder"
            ) from error
    raise UserError(
        f"{setting}={repository}: the Hugging Face repository holds no {' or '.join(names)} on "
        f"{revision or 'its main branch'}; name a revision that does (owner/name@REVISION), or "
        f"set {setting} to a folder; `promptmad convert` reads pickled weights"
    )
