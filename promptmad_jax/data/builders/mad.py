"""MAD, toys seen from many poses (PAD, Zhou et al., NeurIPS 2023), simulated and real."""

import pathlib

from promptmad_jax.data.builders.folder_builder import FolderBuilder
from promptmad_jax.data.builders.known import KnownBuilder
from promptmad_jax.data.builders.records import Found
from promptmad_jax.runtime.names import matching

TOYS = tuple(
    (
        "01Gorilla 02Unicorn 03Mallard 04Turtle 05Whale 06Bird 07Owl 08Sabertooth 09Swan 10Sheep "
        "11Pig 12Zalika 13Pheonix 14Elephant 15Parrot 16Cat 17Scorpion 18Obesobeso 19Bear 20Puppy"
    ).split()
)
# Beside train, test and ground_truth of every toy: poses and papers, no images.
_COMPANIONS = ("transforms", "license", "readme")
_HOMEPAGE = "https://github.com/EricLee0224/PAD"
_CITATION = (
    "@inproceedings{zhou2023pad, title={PAD: A Dataset and Benchmark for Pose-agnostic Anomaly"
    " Detection}, author={Zhou, Qiang and Li, Weize and Jiang, Lihan and Wang, Guoliang and Zhou,"
    " Guyue and Zhang, Shanghang and Zhao, Hao}, booktitle={NeurIPS}, year={2023}}"
)


class MadSim(KnownBuilder):
    """`tfds.builder("mad_sim", data_dir=..., source=PATH)`: 20 rendered toys in MVTec layout.

    The defect folders are `Burrs`, `Missing` and `Stains`. Counts by toy are not published.
    """

    TITLE = "MAD-Sim"
    EXPECTED = dict.fromkeys(TOYS)
    DESCRIPTION = "MAD-Sim: 20 rendered brick toys from many poses. Licence: CC BY-NC-SA 4.0."
    HOMEPAGE = _HOMEPAGE
    CITATION = _CITATION

    def select(self, found: Found) -> Found:
        return super().select(_without_companions(found))


class MadReal(FolderBuilder):
    """`tfds.builder("mad_real", data_dir=..., source=PATH)`: photographed toys in MVTec layout.

    The defect folders are `Missing` and `Stains`. Neither the names of the toys nor their counts
    are known to this project: every class folder is taken.
    """

    DESCRIPTION = "MAD-Real: photographed brick toys. Licence: CC BY-NC-SA 4.0."
    HOMEPAGE = _HOMEPAGE
    CITATION = _CITATION

    def select(self, found: Found) -> Found:
        return _without_companions(found)


def _without_companions(found: Found) -> Found:
    found.problems = [
        problem
        for problem in found.problems
        if problem.kind != "stray"
        or matching(pathlib.PurePath(problem.file).stem) not in _COMPANIONS
    ]
    return found
