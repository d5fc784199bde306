import pytest

from promptmad_jax.runtime.errors import UserError
from promptmad_jax.weights.hub import resolve_file


def test_file_and_folder(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    assert resolve_file(str(file), "model.safetensors") == file
    assert resolve_file(str(tmp_path), "model.safetensors") == file


def test_folder_without_the_file(tmp_path):
    with pytest.raises(UserError, match=r"holds no tokenizer\.json; .*text\.weights"):
        resolve_file(str(tmp_path), "tokenizer.json", "text.weights")


@pytest.mark.parametrize("spec", ["/no/file.npz", "nothing", "./a/b", "folder/file.safetensors"])
def test_absent_path_is_not_taken_for_a_repository(spec):
    with pytest.raises(UserError, match="no such file or folder; set backbone"):
        resolve_file(spec, "model.safetensors", "backbone.weights")


def test_offline_says_what_to_fetch_and_which_key_to_set(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError) as caught:
        resolve_file("owner/name", "model.safetensors", "backbone.weights")
    message = str(caught.value)
    assert "download model.safetensors of the Hugging Face repository owner/name" in message
    assert "set backbone.weights to that folder" in message


@pytest.mark.parametrize(
    "spec, reference", [("owner/name", "main"), ("owner/name@refs/pr/15", "refs/pr/15")]
)
def test_cache_comes_first(tmp_path, monkeypatch, spec, reference):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs" / reference).parent.mkdir(parents=True)
    (repository / "refs" / reference).write_text("0" * 40)
    (snapshot / "model.safetensors").write_bytes(b"x")
    found = resolve_file(spec, "model.safetensors")
    assert found == snapshot / "model.safetensors"
