"""Published figures: data sets, sizes and consistency."""

import pytest

from promptmad_jax.reporting.published import published_results


def test_mvtec_ad_has_both_methods():
    one, prompt = published_results("mvtec_ad", 320)
    assert (one.method, prompt.method) == ("OneNIP", "PromptMAD")
    assert len(one.classes) == len(prompt.classes) == 15
    assert prompt.classes["screw"] == {
        "image_auroc": 90.61,
        "pixel_auroc": 98.64,
        "pixel_ap": 34.39,
    }
    assert tuple(one.mean) == ("image_auroc", "pixel_ap")
    assert prompt.inferred == {("capsule", "pixel_ap"), ("capsule", "pixel_auroc")}
    assert "decoded from a public summary" in one.source


@pytest.mark.parametrize(("size", "nearest"), [(64, 224), (240, 224), (250, 256), (1024, 320)])
def test_nearest_size(size, nearest):
    assert [entry.image_size for entry in published_results("visa", size)] == [nearest]


@pytest.mark.parametrize("name", ["anomaly_folder", "synthetic_mvtec", "mvtec", ""])
def test_other_data_sets_have_none(name):
    assert published_results(name, 224) == ()


@pytest.mark.parametrize("dataset", ["mvtec_ad", "visa", "btad"])
@pytest.mark.parametrize("size", [224, 256, 320])
def test_means_are_those_of_the_classes(dataset, size):
    entries = published_results(f"{dataset}:1.0.0", size)
    assert entries
    for entry in entries:
        for metric, mean in entry.mean.items():
            values = [figures[metric] for figures in entry.classes.values()]
            assert sum(values) / len(values) == pytest.approx(mean, abs=0.006)
            assert all(0 <= value <= 100 for value in values)


def test_mean_over_some_classes():
    (entry,) = published_results("btad", 224)
    assert entry.mean_over(["01", "02", "03"], "pixel_ap") == entry.mean["pixel_ap"]
    values = [entry.classes[name]["pixel_ap"] for name in ("01", "03")]
    assert entry.mean_over(["01", "03"], "pixel_ap") == pytest.approx(sum(values) / 2)
    assert entry.mean_over(["01", "04"], "pixel_ap") is None
