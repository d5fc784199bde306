import json

import pytest

from promptmad_jax.prompts.vocabulary import find_classes, generic_phrases, read_user_file
from promptmad_jax.runtime.errors import UserError

ENTRY = {
    "name": "red cup",
    "normal": ["a photo of a red cup"],
    "defects": {"chip": ["a chipped red cup"]},
}
MVTEC = (
    "bottle",
    "cable",
    "capsule",
    "carpet",
    "grid",
    "hazelnut",
    "leather",
    "metal_nut",
    "pill",
    "screw",
    "tile",
    "toothbrush",
    "transistor",
    "wood",
    "zipper",
)


def write(tmp_path, document, name="words.json"):
    path = tmp_path / name
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_shipped_words_cover_the_data_sets():
    names = (*MVTEC, "pcb1", "macaroni2", "bracket_black", "01", "02", "03")
    found = find_classes(names, "", "named")
    assert [words.class_name for words in found] == list(names)
    assert {words.source for words in found} == {"shipped"}
    by_name = {words.class_name: [state for state, _ in words.states] for words in found}
    assert by_name["transistor"] == ["normal", "bent_lead", "cut_lead", "damaged_case", "misplaced"]
    assert all(states[0] == "normal" and len(states) > 1 for states in by_name.values())


def test_shipped_words_cover_the_synthetic_classes():
    found = find_classes(("hex_bolt", "woven_fabric"), "", "named")
    assert {words.source for words in found} == {"shipped"}


def test_unknown_class_gets_generic_words():
    (words,) = find_classes(("my_new-part",), "", "named")
    assert (words.source, words.name) == ("generic", "my new part")
    assert [state for state, _ in words.states] == ["normal", "damaged"]
    assert all("my new part" in phrase for _, phrases in words.states for phrase in phrases)


def test_a_name_without_letters_still_reads():
    assert generic_phrases("0815").name == "product 0815"


def test_generic_defects_tell_no_defect_names():
    (screw,) = find_classes(("screw",), "", "generic")
    (named,) = find_classes(("screw",), "", "named")
    assert screw.states[0] == named.states[0]
    assert [state for state, _ in screw.states] == ["normal", "damaged"]
    told = " ".join(screw.states[1][1])
    assert not any(word in told for word in ("scratch", "thread", "manipulated", "neck"))


def test_users_words_win(tmp_path):
    path = write(tmp_path, {"screw": ENTRY})
    screw, bottle = find_classes(("screw", "bottle"), str(path), "named")
    assert (screw.source, screw.name, bottle.source) == ("user", "red cup", "shipped")
    assert screw.states == (("normal", ("a photo of a red cup",)), ("chip", ("a chipped red cup",)))


def test_yaml_with_and_without_group(tmp_path):
    yaml = (
        "my_factory:\n  cup:\n    name: red cup\n    normal: [a photo of a red cup]\n"
        "    defects:\n      chip:\n      - a chipped red cup\n"
    )
    grouped = read_user_file(write(tmp_path, yaml, "grouped.yaml"))
    flat = read_user_file(write(tmp_path, {"cup": ENTRY}, "flat.json"))
    assert grouped == flat
    assert list(flat) == ["cup"]


def test_yaml_merge_keys_share_words(tmp_path):
    yaml = (
        "cup: &cup\n  name: red cup\n  normal: [a cup]\n  defects: {}\n"
        "mug:\n  <<: *cup\n  name: mug\n"
    )
    words = read_user_file(write(tmp_path, yaml, "words.yml"))
    assert (words["mug"].name, words["mug"].states) == ("mug", words["cup"].states)


def test_a_class_without_known_defects_has_one_state(tmp_path):
    words = read_user_file(write(tmp_path, {"cup": {**ENTRY, "defects": {}}}))["cup"]
    assert [state for state, _ in words.states] == ["normal"]


def test_unused_classes_are_named_with_the_nearest(tmp_path, capsys):
    document = {"screws": ENTRY} | {f"x{i}": ENTRY for i in range(5)}
    found = find_classes(("screw", "nut"), str(write(tmp_path, document)), "named")
    error = capsys.readouterr().err
    assert "not classes of this data set: 'screws' (nearest: 'screw'), 'x0'" in error
    assert error.endswith(" and 1 more\n") and found[1].source == "generic"


@pytest.mark.parametrize("spelling", ["Geh\u00e4use", "Geha\u0308use", "GEH\u00c4USE"])
def test_spellings_of_one_class_match(tmp_path, capsys, spelling):
    path = write(tmp_path, {spelling: ENTRY})
    (words,) = find_classes(("Geh\u00e4use",), str(path), "named")
    assert (words.class_name, words.source) == ("Geh\u00e4use", "user")
    assert not capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_files_as_windows_writes_them(tmp_path, encoding):
    path = tmp_path / "WORDS.JSON"
    path.write_text(json.dumps({"cup": ENTRY}).replace(",", ",\r\n"), encoding)
    assert read_user_file(path)["cup"].name == ENTRY["name"]


def test_first_of_two_groups_counts(tmp_path, capsys):
    document = {"one": {"cup": ENTRY}, "two": {"cup": {**ENTRY, "name": "blue cup"}}}
    assert read_user_file(write(tmp_path, document))["cup"].name == "red cup"
    assert "several groups" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("[]", r"is \[\]; it must map"),
        ({"cup": "a cup"}, "cup: is 'a cup'"),
        ({"group": {"cup": 3}}, "group/cup: is 3"),
        ({"cup": {"name": "cup", "normal": ["a cup"]}}, "cup: lacks defects"),
        ({"cup": {**ENTRY, "defect": {}}}, "cup: has defect; the form is"),
        ({"cup": {**ENTRY, "name": ""}}, "cup: name: is ''"),
        ({"cup": {**ENTRY, "normal": "a cup"}}, "cup: normal: is 'a cup'; it must be a list"),
        ({"cup": {**ENTRY, "normal": []}}, r"cup: normal: is \[\]"),
        ({"cup": {**ENTRY, "defects": ["chip"]}}, r"cup: defects: is \['chip'\]"),
        ({"cup": {**ENTRY, "defects": {"chip": [1]}}}, "cup: defects: chip: item 1: is 1"),
        ("{", "malformed"),
        ("[" * 100_000, "malformed"),
        ('{"cup": 1, "cup": 2}', "the key 'cup' is repeated"),
    ],
)
def test_malformed_json_names_file_class_and_key(tmp_path, document, reason):
    path = write(tmp_path, document)
    with pytest.raises(UserError, match=reason) as caught:
        find_classes(("cup",), str(path), "named")
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("01:\n  name: x\n", "key 1 is not text"),
        ("cup:\n", "cup: is empty"),
        ("cup: [\n", "malformed"),
        ("cup: 1\ncup: 2\n", "the key 'cup' is repeated"),
        ("", "is empty; it must map"),
        ("cup: !!python/object/apply:os.getcwd []\n", "malformed"),
    ],
)
def test_malformed_yaml_names_file_class_and_key(tmp_path, text, reason):
    path = write(tmp_path, text, "words.yaml")
    with pytest.raises(UserError, match=reason) as caught:
        read_user_file(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "reason"), [("absent.yaml", "no such file"), ("words.txt", "is a .yaml")]
)
def test_wrong_files(tmp_path, name, reason):
    write(tmp_path, "cup", "words.txt")
    with pytest.raises(UserError, match=reason):
        read_user_file(tmp_path / name)


def test_bytes_that_are_no_text(tmp_path):
    path = tmp_path / "words.yaml"
    path.write_bytes(b"cup: \xff\xfe\n")
    with pytest.raises(UserError, match="malformed"):
        read_user_file(path)
