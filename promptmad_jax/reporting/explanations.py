"""Explains in a few words why an image got its score."""

from dataclasses import dataclass

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps

PARTS = ("memory", "reconstruction", "coarse", "refined")
# Up to this many images, shares are given as counts rather than percent.
FEW = 20
_NORMAL_QUANTILE = 0.99


@dataclass(frozen=True)
class Window:
    """The square that made an image's score: its upper left corner and its width, in pixels."""

    top: int
    left: int
    width: int

    def crop(self, values: np.ndarray) -> np.ndarray:
        """The part of [H, W] inside the window."""
        return values[self.top : self.top + self.width, self.left : self.left + self.width]


def highest_window(values: np.ndarray, width: int) -> Window:
    """The window of the map [H, W] with the highest average, which is the image score."""
    sums = np.pad(values.astype(np.float64), ((1, 0), (1, 0))).cumsum(0).cumsum(1)
    totals = sums[width:, width:] - sums[:-width, width:] - sums[width:, :-width]
    totals += sums[:-width, :-width]
    top, left = np.unravel_index(int(np.argmax(totals)), totals.shape)
    return Window(int(top), int(left), width)


@dataclass(frozen=True, eq=False)
class Explainer:
    """Explains the scores of one class's images.

    Attributes:
      class_maps: the class.
      scores: its image scores, [n].
      normal_levels: part of the model -> the value that 1 % of the normal images' pixels exceed;
        empty without normal images.
    """

    class_maps: ClassMaps
    scores: np.ndarray
    normal_levels: dict[str, float]

    def explain(self, index: int, window: Window) -> str:
        """The rank of the image's score, where the score comes from, and which maps respond."""
        mask = self.class_maps.masks[index]
        if self.class_maps.labels[index]:
            words = [self._rank(index), self._place(mask, window), self._response(index, mask)]
        else:
            words = [self._rank(index), self._sources(index, window)]
            ends = np.array([window.top, window.left]) + window.width
            if 0 in (window.top, window.left) or (ends == mask.shape).any():
                words.append("the map peaks at the edge of the image")
        return "; ".join(filter(None, words))

    def _rank(self, index: int) -> str:
        """The score's place among the images of the other label."""
        label = bool(self.class_maps.labels[index])
        others = self.scores[self.class_maps.labels.astype(bool) != label]
        if not len(others):
            return ""
        kind = "normal" if label else "defective"
        below = int((others > self.scores[index]).sum())
        above = int((others < self.scores[index]).sum())
        if len(others) in (above, below):
            return f"scores {'above' if above else 'below'} all {len(others)} {kind} images"
        count, word = (below, "below") if label else (above, "above")
        share = f"{count} of the {len(others)}"
        if len(others) > FEW:
            share = f"{100 * count / len(others):.0f} % of the"
        return f"scores {word} {share} {kind} images"

    def _place(self, mask: np.ndarray, window: Window) -> str:
        if not mask.any():
            return "the mask is empty"
        return f"the map peaks {'on' if window.crop(mask).any() else 'outside'} the defect"

    def _response(self, index: int, mask: np.ndarray) -> str:
        """The maps that rise above the normal level on half the defect or more."""
        if not mask.any():
            return ""
        maps, levels = self.class_maps.maps, self.normal_levels
        high = [name for name in levels if np.median(maps[name][index][mask]) > levels[name]]
        low = [name for name in levels if name not in high]
        if not low:
            return ""
        if not high:
            return "no map responds to the defect"
        verbs = ("responds" if len(high) == 1 else "respond", "does" if len(low) == 1 else "do")
        return f"{_listed(high)} {verbs[0]} to it, {_listed(low)} {verbs[1]} not"

    def _sources(self, index: int, window: Window) -> str:
        """The maps whose average in the window is above the normal level."""
        maps, levels = self.class_maps.maps, self.normal_levels
        high = [n for n in levels if window.crop(maps[n][index]).mean() > levels[n]]
        return f"raised by {_listed(high)}" if high and len(levels) > 1 else ""


def make_explainer(class_maps: ClassMaps, scores: np.ndarray) -> Explainer:
    """Measures the normal levels of the class's maps."""
    normal = ~class_maps.labels.astype(bool)
    levels = {
        name: float(np.quantile(class_maps.maps[name][normal], _NORMAL_QUANTILE))
        for name in PARTS
        if name in class_maps.maps and normal.any()
    }
    return Explainer(class_maps, scores, levels)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))
