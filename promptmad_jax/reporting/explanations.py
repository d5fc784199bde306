"""Why an image got its score, in a few words."""

from dataclasses import dataclass

import numpy as np

from promptmad_jax.evaluation.class_maps import ClassMaps

PARTS = ("reconstruction", "coarse", "refined")
FEW = 20
_NORMAL_QUANTILE = 0.99


@dataclass(frozen=True)
class Window:
    """The square that made an image's score: its upper left corner and its width, in pixels."""

    top: int
    left: int
    width: int

    def of(self, values: np.ndarray) -> np.ndarray:
        """The part of [H, W] inside."""
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
    """What the words about one image need to know of its class.

    Attributes:
      class_maps: the class.
      scores: its image scores, [n].
      normal_levels: map -> the value that 1 % of the normal images' pixels exceed.
    """

    class_maps: ClassMaps
    scores: np.ndarray
    normal_levels: dict[str, float]

    def reason(self, index: int, window: Window) -> str:
        """The rank of the image's score, where the score comes from, and which maps respond."""
        words = [self._rank(index)]
        mask = self.class_maps.masks[index]
        if self.class_maps.labels[index]:
            words.append(self._place(mask, window))
            if mask.any():
                words.append(self._response(index, mask))
        else:
            words.append(self._sources(index, window))
            if self._at_border(window, mask.shape):
                words.append("highest score lies at the edge of the picture")
        return "; ".join(word for word in words if word)

    def _rank(self, index: int) -> str:
        """How the score stands among the images of the other kind."""
        label = bool(self.class_maps.labels[index])
        others = self.scores[self.class_maps.labels.astype(bool) != label]
        if not len(others):
            return ""
        kind = "normal" if label else "defective"
        below = int((others > self.scores[index]).sum())
        above = int((others < self.scores[index]).sum())
        if above == len(others):
            return f"score above all {len(others)} {kind} images"
        if below == len(others):
            return f"score below all {len(others)} {kind} images"
        count, word = (below, "below") if label else (above, "above")
        return f"score {word} {_share(count, len(others), kind)} images"

    def _place(self, mask: np.ndarray, window: Window) -> str:
        if not mask.any():
            return "its mask is empty"
        covered = int(np.count_nonzero(window.of(mask)))
        return (
            "highest score lies on the defect"
            if covered
            else "highest score lies outside the defect"
        )

    def _response(self, index: int, mask: np.ndarray) -> str:
        """Which maps rise above normal pixels on half the defect or more."""
        maps = self.class_maps.maps
        parts = [name for name in PARTS if name in maps and name in self.normal_levels]
        high = [n for n in parts if np.median(maps[n][index][mask]) > self.normal_levels[n]]
        if not parts or len(high) == len(parts):
            return ""
        low = [name for name in parts if name not in high]
        if not high:
            return "no map stands out on the defect"
        return f"{_listed(high)} stand{'s'[: len(high) == 1]} out on it, {_listed(low)} not"

    def _sources(self, index: int, window: Window) -> str:
        """Which maps are high on average where the score comes from."""
        maps = self.class_maps.maps
        parts = [name for name in PARTS if name in maps and name in self.normal_levels]
        high = [n for n in parts if window.of(maps[n][index]).mean() > self.normal_levels[n]]
        if not high or len(parts) == 1:
            return ""
        return f"raised by {_listed(high)}"

    def _at_border(self, window: Window, shape: tuple[int, ...]) -> bool:
        ends = (window.top + window.width, window.left + window.width)
        return 0 in (window.top, window.left) or ends[0] == shape[0] or ends[1] == shape[1]


def make_explainer(class_maps: ClassMaps, scores: np.ndarray) -> Explainer:
    """Without normal images there are no levels, and nothing is said of the maps."""
    normal = ~class_maps.labels.astype(bool)
    levels = {}
    if normal.any():
        levels = {
            name: float(np.quantile(values[normal], _NORMAL_QUANTILE))
            for name, values in class_maps.maps.items()
        }
    return Explainer(class_maps, scores, levels)


def _listed(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _share(count: int, total: int, kind: str) -> str:
    """Few in numbers, many in percent."""
    if total <= FEW:
        return f"{count} of the {total} {kind}"
    return f"{100 * count / total:.0f} % of the {kind}"
