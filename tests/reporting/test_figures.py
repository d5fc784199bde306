"""Figures and tables as files."""

import csv

import pytest
from PIL import Image

from promptmad_jax.reporting.figures import Figures
from promptmad_jax.reporting.published import published_results
from promptmad_jax.reporting.table_files import write_tables
from promptmad_jax.runtime.errors import UserError
from tests.reporting.report_cases import HISTORY, evaluate, make_class

NAME = "nut/$x_1$ & 5%{}#~^\\"


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    directory = tmp_path_factory.mktemp("figures") / "new"
    classes = make_class(NAME), make_class("plain", defective=0, keys=())
    figures = Figures(directory, 16, 0.3)
    for class_maps in classes:
        figures.add(class_maps)
    figures.write(evaluate(*classes), HISTORY, {NAME: 1.0})
    return directory


def test_every_figure_as_pdf_and_png(drawn):
    names = {"gallery_00_nut_x_1_5_", "gallery_01_plain", "curves", "histograms", "training"}
    assert {path.name for path in drawn.iterdir()} == {
        f"{name}.{kind}" for name in names for kind in ("pdf", "png")
    }
    for path in drawn.iterdir():
        if path.suffix == ".png":
            assert min(Image.open(path).size) > 200
        else:
            assert (
                path.read_bytes().startswith(b"%PDF") and b"CreationDate" not in path.read_bytes()
            )


def test_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        Figures(tmp_path / "file" / "x", 16, 0.3)


def test_tables(tmp_path):
    classes = make_class("bottle"), make_class("plain", defective=0)
    result = evaluate(*classes)
    write_tables(tmp_path, result, published_results("mvtec_ad", 224))
    names = {"classes.csv", "classes.tex", "parts.csv", "parts.tex"}
    assert {path.name for path in tmp_path.iterdir()} == names
    with (tmp_path / "classes.csv").open(newline="") as file:
        head, bottle, plain, mean = csv.reader(file)
    assert head[:4] == ["class", "I-AUROC", "I-AUROC OneNIP", "I-AUROC PromptMAD"]
    assert bottle[0] == "bottle" and bottle[2:4] == ["99.8400", "100.0000"]
    assert float(bottle[1]) == pytest.approx(100 * result["classes"]["bottle"]["image_auroc"])
    assert plain[1:4] == ["", "", ""]
    assert mean[0] == "mean" and mean[2] == ""
    with (tmp_path / "parts.csv").open(newline="") as file:
        names = [row[0] for row in csv.reader(file)]
    assert names[:2] == ["map", "final"] and {"coarse", "onenip_fusion"} <= set(names)


def test_latex(tmp_path):
    write_tables(tmp_path, evaluate(make_class(NAME)))
    lines = (tmp_path / "classes.tex").read_text().splitlines()
    assert lines[0] == r"\begin{tabular}{l" + 8 * "r" + "}"
    assert lines[1] == r"\toprule" and lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    (row,) = [line for line in lines if line.startswith("nut")]
    assert row.startswith(
        r"nut/\$x\_1\$ \& 5\%\{\}\#\textasciitilde{}\textasciicircum{}\textbackslash{} & "
    ) and row.endswith(r" \\")
    assert row.count(" & ") == 8
