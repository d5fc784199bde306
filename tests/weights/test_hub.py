import functools

import pytest
from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights import hub

NAMES = ("model.safetensors", "flax_model.msgpack")
resolve = functools.partial(hub.resolve_file, setting="backbone.weights")


class NotThereError(RemoteEntryNotFoundError):
    """What the hub raises for a 404, without the response of its HTTP client."""

    def __init__(self):
        pass


class GatedError(GatedRepoError):
    """What the hub raises for a repository with an agreement."""

    def __init__(self):
        pass


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("name", NAMES)
def test_file_and_folder(tmp_path, name):
    file = tmp_path / name
    file.write_bytes(b"")
    assert resolve(str(file), *NAMES) == file
    assert resolve(str(tmp_path), *NAMES) == file


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "w.npz").write_bytes(b"")
    assert resolve("~/w.npz", *NAMES) == tmp_path / "w.npz"


def test_folder_without_the_file(tmp_path):
    with pytest.raises(UserError, match=r"holds no a\.json or b\.json; .*backbone\.weights"):
        resolve(str(tmp_path), "a.json", "b.json")


PATHS = ("/no/file.npz", "nothing", "./a/b", "~/a/b", "../a", "a/b/c", "a/w.msgpack", "here/clip")


@pytest.mark.parametrize("spec", PATHS)
def test_absent_path_is_not_taken_for_a_repository(spec, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(UserError, match=f"^{spec}: no such file or folder; set backbone"):
        resolve(spec, *NAMES)


def test_offline_says_what_to_fetch_and_which_key_to_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner").mkdir()  # the revision says that no folder is meant
    with pytest.raises(UserError) as caught:
        resolve("owner/name@main", *NAMES)
    message = str(caught.value)
    assert "download model.safetensors or flax_model.msgpack of the Hugging Face" in message
    assert "repository owner/name" in message and "--backbone_weights) to that folder" in message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "spec, reference", [("owner/name", "main"), ("owner/name@refs/pr/15", "refs/pr/15")]
)
def test_cache_comes_first(cache, spec, reference, name):
    repository = cache / "models--owner--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs" / reference).parent.mkdir(parents=True)
    (repository / "refs" / reference).write_text("0" * 40)
    (snapshot / name).write_bytes(b"x")
    assert resolve(spec, *NAMES) == snapshot / name


def test_a_gated_repository_says_how_to_get_in(monkeypatch):
    def download(repository, name, revision):
        raise GatedError

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    with pytest.raises(UserError, match=r"=facebook/dinov3: .*accept the licence .*hf auth login"):
        resolve("facebook/dinov3", *NAMES)


@pytest.mark.parametrize("held", [*NAMES, "pytorch_model.bin"])
def test_names_are_tried_in_order(monkeypatch, held):
    asked = []

    def download(repository, name, revision):
        asked.append(name)
        if name != held:
            raise NotThereError
        return f"/cache/{name}"

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    if held in NAMES:
        assert str(resolve("owner/name", *NAMES)) == f"/cache/{held}"
        assert asked == list(NAMES[: len(asked)])
    else:
        with pytest.raises(UserError, match=r"holds no model\.saf.* or flax_.* on its main branch"):
            resolve("owner/name", *NAMES)
