"""Settings of the zero-shot detectors, and the three published ones."""

from dataclasses import dataclass, replace
from typing import Literal

from promptmad_jax.clip.config import ClipConfig
from promptmad_jax.runtime.errors import UserError
from promptmad_jax.runtime.field_types import Depth, ImageSize, Layers, PositiveFloat, UnitInterval


@dataclass(frozen=True)
class DapoConfig:
    """A zero-shot detector; the defaults are DAPO's (arXiv 2512.09446).

    There are K + 1 states, the normal one first, and a pair of states: the normal one and the
    normalised mean of the K abnormal ones.

    Attributes:
        image_size: side S in pixels; images are squashed to S x S with a bicubic kernel. Must equal
            `data.image_size`.
        taps: layers of the image tower that give patch features, counted from 1.
        adapters: train a Linear per tap into the space of the texts; false takes the last
            LayerNorm and the projection of the image tower, which fit its last layer.
        prompts: learnt prompts E per state; 0 takes hand-written phrases and trains no text.
        prompt_tokens: learnt tokens l at the start of a prompt.
        text_tokens: deep prompts in each layer of the text tower; 0 for none.
        image_tokens: deep prompts in each layer of the image tower; with 0 the features of an image
            never change, and may be computed once.
        alpha: share of the previous layer's output in a layer's deep prompts; the rest are the
            layer's own learnt tokens.
        normal_words: words after the learnt tokens of the normal state; may contain {object}.
        defect_words: words after the learnt tokens of a defect type; must contain {defect}.
        temperature: divisor of the cosines.
        softmax_first: softmax over the states at each patch before enlarging; else after it.
        map_from: the anomaly map is the sum of the abnormal "states", or the abnormal one of the
            "pair"; always the mean over the taps, so 0..1.
        score_from: the image score is the abnormal one of the "pair" for the class token; with
            "map_and_states" the map's maximum + 1 - the class token's normal state.
        compat: reproduce the published code's two slips in the text tower: no causal mask (so that
            padding counts; it is id 0 up to the full context), and pooling as if no deep prompts
            came before the end token.
        remat: recompute the towers' layers in the backward pass; less memory, more time.
        dtype: that both towers compute in; the text tower's and all trained parameters are float32.

    Raises:
        ValueError: values that do not fit together.
    """

    image_size: ImageSize = 518
    taps: tuple[Layers, ...] = (6, 12, 18, 24)
    adapters: bool = True
    prompts: Depth = 10
    prompt_tokens: Depth = 5
    text_tokens: Depth = 4
    image_tokens: Depth = 4
    alpha: UnitInterval = 0.01
    normal_words: str = "flawless {object}"
    defect_words: str = "{defect} anomaly {object}"
    temperature: PositiveFloat = 0.07
    softmax_first: bool = True
    map_from: Literal["states", "pair"] = "states"
    score_from: Literal["pair", "map_and_states"] = "pair"
    compat: bool = False
    remat: bool = False
    dtype: Literal["float32", "bfloat16"] = "float32"

    def __post_init__(self):
        if not self.taps or list(self.taps) != sorted(set(self.taps)):
            raise ValueError(f"taps are {self.taps}; they must be layers in rising order")
        if self.prompts and not self.prompt_tokens:
            raise ValueError("prompt_tokens is 0; it must be at least 1, unless prompts is 0")
        if self.text_tokens and not self.prompts:
            raise ValueError(f"text_tokens is {self.text_tokens}; it must be 0 where prompts is 0")
        _check_words("normal_words", self.normal_words, object="object")
        _check_words("defect_words", self.defect_words, object="object", defect="defect")
        if "{defect}" not in self.defect_words:
            raise ValueError(f"defect_words is {self.defect_words!r}; it must contain {{defect}}")

    @property
    def learns_text(self) -> bool:
        """True where the states of the texts change in training."""
        return self.prompts > 0

    @property
    def trains(self) -> bool:
        """True where any parameter is trained."""
        return self.adapters or self.prompts > 0 or self.image_tokens > 0

    def check(self, clip: ClipConfig) -> None:
        """Raises UserError if this CLIP cannot carry the detector."""
        text, vision = clip.text, clip.vision
        if text is None or vision is None:
            raise UserError("zero-shot detection needs both towers of CLIP; this model lacks one")
        if text.projection is None or text.projection != vision.projection:
            raise UserError(
                "zero-shot detection compares images with texts, but the towers of this CLIP end "
                f"in {vision.projection} and {text.projection} channels; give a model with both "
                "projections"
            )
        if self.taps[-1] > vision.layers:
            raise UserError(
                f"config.dapo.taps is {self.taps}; the image tower has {vision.layers} layers"
            )
        if self.image_size < vision.patch:
            raise UserError(
                f"config.dapo.image_size is {self.image_size}; a patch has {vision.patch} pixels"
            )


def _check_words(field: str, words: str, **names: str) -> None:
    try:
        words.format(**names)
    except (KeyError, IndexError, ValueError) as error:
        allowed = " and ".join(f"{{{name}}}" for name in names)
        raise ValueError(f"{field} is {words!r}; it may contain {allowed} ({error!r})") from error


DAPO = DapoConfig()
# MultiADS (ICCV 2025): of all that is trained only the adapters.
MULTIADS = replace(
    DAPO,
    prompts=0,
    text_tokens=0,
    image_tokens=0,
    temperature=0.01,
    softmax_first=False,
    score_from="map_and_states",
)
# The floor: nothing is trained. WinCLIP's ensemble of phrases (arXiv 2303.14814) without windows,
# at CLIP's own temperature; set `taps` to the last layer of another CLIP.
CLIP_ZERO_SHOT = replace(
    MULTIADS, adapters=False, taps=(24,), softmax_first=True, map_from="pair", score_from="pair"
)
