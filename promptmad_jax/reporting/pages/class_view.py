"""One class as the page shows it: scores, curves, thumbnails, and the scores in words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptmad_jax.reporting.curves import Points
from promptmad_jax.reporting.pages.thumbnails import PictureRow


@dataclass(frozen=True, eq=False)
class ClassView:
    """One class as the page shows it.

    Attributes:
      name: of the class. anchor: identifier of its part of the page.
      scores: image scores, float [n]. labels: bool [n], true for defective images.
      defect_types: n words.
      curves: as `curves.class_curves` returns them.
      groups: group of the gallery -> its rows. scales: map -> its colour scale.
      diffusion: the steps of one image, where the model has a diffusion.
      types: images with the types of their defects, where the model tells types apart.
    """

    name: str
    anchor: str
    scores: np.ndarray
    labels: np.ndarray
    defect_types: tuple[str, ...]
    curves: Mapping[str, Points]
    groups: Mapping[str, Sequence[PictureRow]]
    scales: Mapping[str, tuple[float, float]]
    diffusion: PictureRow | None
    types: Sequence[PictureRow]

    @property
    def normal(self) -> np.ndarray:
        """The scores of the normal images."""
        return self.scores[~self.labels]

    @property
    def defective(self) -> np.ndarray:
        """The scores of the defective images."""
        return self.scores[self.labels]

    @property
    def verdict(self) -> str:
        """Says in words how well the image scores separate normal from defective images."""
        normal, defective = len(self.normal), len(self.defective)
        if not normal or not defective:
            missing = "normal" if defective else "defective"
            return f"The test split has no {missing} image to compare with."
        hidden = int((self.defective <= self.normal.max()).sum())
        if not hidden:
            return f"All {defective} defective images score above all {normal} normal ones."
        return (
            f"{hidden} of {defective} defective images score no higher than the highest of the "
            f"{normal} normal ones: no threshold finds them without a false alarm."
        )

    @property
    def type_shares(self) -> dict[str, tuple[float, int]]:
        """Type of defect -> its image AUROC and number of images, lowest first.

        Empty for a class without normal images or with a single type.
        """
        normal, kinds = self.normal, np.array(self.defect_types)
        names = dict.fromkeys(kinds[self.labels].tolist())
        if len(names) < 2 or not len(normal):
            return {}
        shares = {}
        for kind in names:
            own = self.scores[self.labels & (kinds == kind)][:, None]
            wins = (own > normal) + 0.5 * (own == normal)
            shares[kind] = float(wins.mean()), len(own)
        return dict(sorted(shares.items(), key=lambda item: item[1][0]))
