"""Hand-written phrases for a normal object and for a defect type, in photo templates."""

_NORMAL = (
    "flawless {object}",
    "intact {object}",
    "undamaged {object}",
    "spotless {object}",
    "brand new {object}",
    "{object} in perfect condition",
    "{object} without any defect",
    "{object} that passed inspection",
    "{object} as it should look",
    "{object} of good quality",
)
_DEFECT = (
    "{object} with {defect}",
    "{object} with visible {defect}",
    "{object} showing {defect}",
    "{object} that failed inspection for {defect}",
    "faulty {object} with a {defect} defect",
    "{object} spoilt by {defect}",
)
# "the" agrees with every phrase; "a" and "an" would not.
_TEMPLATES = (
    "a photo of the {}",
    "a close-up photo of the {}",
    "a cropped photo of the {}",
    "a bright photo of the {}",
    "a dark photo of the {}",
    "a blurry photo of the {}",
    "a black and white photo of the {}",
    "a photo of the {} for visual inspection",
)


def written_phrases(defects: tuple[str, ...], object_name: str) -> tuple[tuple[str, ...], ...]:
    """Phrases of the normal state (80) and of each defect type (48)."""
    normal = [phrase.format(object=object_name) for phrase in _NORMAL]
    states = [
        [phrase.format(object=object_name, defect=defect) for phrase in _DEFECT]
        for defect in defects
    ]
    return tuple(
        tuple(template.format(phrase) for phrase in group for template in _TEMPLATES)
        for group in (normal, *states)
    )
