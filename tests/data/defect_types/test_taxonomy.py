import json

import pytest

from promptmad_jax.data.builders import mpdd, mvtec_ad
from promptmad_jax.data.builders.visa import LABELS
from promptmad_jax.data.defect_types.taxonomy import UNKNOWN, find_taxonomy
from promptmad_jax.data.synthetic import scenes
from promptmad_jax.runtime.errors import UserError

OWN = "types:\n  scratch: {words: [scratch, long scratch], folders: [kratzer]}\n"


def shipped(name):
    return find_taxonomy(name, "", [])


def write(tmp_path, text, name="types.yaml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_number_of_types_of_each_data_set():
    numbers = {"mvtec_ad": 20, "visa": 18, "mpdd": 7, "mad_real": 2, "mad_sim": 3, "real_iad": 8}
    numbers["synthetic_mvtec"] = 17
    assert {name: len(shipped(name).names) for name in numbers} == numbers


def test_all_folders_of_the_data_sets_have_a_type():
    for name, expected in (("mvtec_ad", mvtec_ad.EXPECTED), ("mpdd", mpdd.EXPECTED)):
        folders = {folder for one in expected.values() for folder in one.defects}
        known = {folder for defect in shipped(name).types for folder in defect.folders}
        assert folders <= known, name
        assert all(shipped(name).id_of(folder) != UNKNOWN for folder in folders)
    for class_name in scenes.CLASS_NAMES:
        for folder in scenes.defect_types(class_name):
            assert 1 <= shipped("synthetic_mvtec").id_of(folder) <= 17


def test_labels_of_visa():
    visa = shipped("visa")
    ids = {label: visa.id_of(label) for labels in LABELS.values() for label in labels}
    without = {label for label, k in ids.items() if k == UNKNOWN}
    assert without == {"discolor", "leak", "misshape", "dirt", "other"}
    assert set(ids.values()) == {*range(1, 19), UNKNOWN}
    spots = [label for label, k in ids.items() if k == visa.names.index("spot") + 1]
    assert sorted(spots) == [
        "color spot similar to the object",
        "different color spot",
        "different colour spot",
        "same colour spot",
        "similar colour spot",
    ]


def test_ids_names_and_words_belong_together():
    mvtec = shipped("mvtec_ad:1.0.0")
    assert mvtec.dataset == "mvtec_ad"
    assert mvtec.names[mvtec.id_of("oil") - 1] == "liquid"
    assert mvtec.id_of("manipulated_front") == mvtec.id_of("Bent") == 1
    assert mvtec.words[mvtec.id_of("print") - 1] == "faulty imprint"
    assert shipped("mad_sim").names == ("missing", "stains", "burrs")
    assert shipped("mad_sim").id_of("Burrs") == 3
    assert shipped("real_iad").names[shipped("real_iad").id_of("ZW") - 1] == "contamination"


def test_a_folder_that_is_not_there_is_said():
    with pytest.raises(UserError, match=r"mpdd: the type of .* 'melted' is not known .*\.yaml"):
        shipped("mpdd").id_of("melted")


def test_where_nothing_is_known_nothing_is_guessed():
    for name, reason in (("btad", "folder ko"), ("mvtec_ad_2", "folder bad")):
        with pytest.raises(UserError, match=rf"{reason}; name .*data\.taxonomy=folders"):
            shipped(name)
    with pytest.raises(UserError, match=r"anomaly_folder: .* only those of mad_real, mad_sim"):
        shipped("anomaly_folder")


def test_each_folder_a_type():
    taxonomy = find_taxonomy("btad", "folders", ["ko", "good", "broken_large", "ko"])
    assert taxonomy.names == ("broken_large", "ko")
    assert taxonomy.words == ("broken large", "ko")
    assert taxonomy.source == "folders"
    with pytest.raises(UserError, match="0 types"):
        find_taxonomy("btad", "folders", ["good"])


def test_own_file(tmp_path):
    path = write(tmp_path, OWN + "without_type: [sonstiges]\n")
    taxonomy = find_taxonomy("anomaly_folder", path, [])
    assert (taxonomy.names, taxonomy.words) == (("scratch",), ("scratch",))
    assert taxonomy.types[0].words == ("scratch", "long scratch")
    assert (taxonomy.id_of("Kratzer"), taxonomy.id_of("sonstiges")) == (1, UNKNOWN)
    assert taxonomy.source == path
    as_json = json.dumps({"types": {"a": {"words": ["a"], "folders": ["b"]}}})
    assert find_taxonomy("x", write(tmp_path, as_json, "t.json"), []).names == ("a",)


def test_own_file_comes_before_what_is_shipped(tmp_path):
    text = (
        "types:\n"
        "  hole: {words: [bore], folders: [flattening]}\n"
        "  torn: {words: [torn], folders: [hole, tear]}\n"
        "without_type: [total_rust, major_rust]\n"
    )
    taxonomy = find_taxonomy("mpdd", write(tmp_path, text), [])
    old = shipped("mpdd").names
    assert taxonomy.names == (*(n for n in old if n not in ("rust", "flattening")), "torn")
    assert taxonomy.names[taxonomy.id_of("hole") - 1] == "torn"
    assert taxonomy.names[taxonomy.id_of("flattening") - 1] == "hole"
    assert taxonomy.words[taxonomy.id_of("flattening") - 1] == "bore"
    assert taxonomy.id_of("major_rust") == UNKNOWN
    assert taxonomy.names[taxonomy.id_of("scratches") - 1] == "scratch"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[]", r"is \[\]; it must map types"),
        ("types: {}", "0 types; there may be 1 to 254"),
        ("kinds: {}", "has kinds; the form is"),
        ("without_type: [a]", "lacks types"),
        ("types: {a: [b]}", r"a: is \['b'\]; it must map words"),
        ("types: {a: {words: [a]}}", "a: lacks folders"),
        ("types: {a: {words: [a], folders: [a], id: 3}}", "a: has id"),
        ("types: {a: {words: a, folders: [a]}}", "a: words: is 'a'; it must be a list"),
        ("types: {a: {words: [a], folders: []}}", r"a: folders: is \[\]"),
        ("types: {1: {words: [a], folders: [a]}}", "key 1 is not text"),
        (
            "types: {a: {words: [a], folders: [x]}, b: {words: [b], folders: [X]}}",
            "the folder 'X' is in a and in b",
        ),
        ("types: {a: {words: [a], folders: [x]}}\nwithout_type: [x]", "in a and in without_type"),
        ("types: {a: {words: [a], folders: [good]}}", "a: the folder good is normal"),
        ("types: {Normal: {words: [a], folders: [x]}}", "cannot be called good or normal"),
        ("types: {a: 1, a: 2}", "the key 'a' is repeated"),
    ],
)
def test_malformed_files(tmp_path, text, reason):
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=reason) as caught:
        find_taxonomy("anomaly_folder", path, [])
    assert path in str(caught.value)


def test_absent_file():
    with pytest.raises(UserError, match=r"no such file; data\.taxonomy is a \.yaml"):
        find_taxonomy("visa", "absent.yaml", [])
