"""Images that runs disagree on, side by side: one row an image, one overlay a run."""

from collections.abc import Sequence

from promptmad_jax.reporting.pages.page import escape, figure
from promptmad_jax.reporting.pages.pictures import encode, encode_overlay
from promptmad_jax.reporting.runs import Disputed, Run, Shown

NOTE = (
    "The overlays lie on a scale of their run and class: clear at the median of normal pixels, "
    "full at the 99.9 % quantile of pseudo-anomalies. The blue line is the edge of the true "
    "defect, the white square the place that made the image score."
)


def paired_rows(
    runs: Sequence[Run], images: Sequence[Disputed], shown: Sequence[Sequence[Shown]]
) -> str:
    """The rows of the images.

    Args:
      shown: for each run, what it makes of these images.
    """
    rows = (_row(runs, image, [own[index] for own in shown]) for index, image in enumerate(images))
    return f'<p class="soft">{NOTE}</p><div class="card paired">{"".join(rows)}</div>'


def _row(runs: Sequence[Run], entry: Disputed, shown: Sequence[Shown]) -> str:
    image = entry.image
    pictures = [("image", encode(shown[0].image)), ("mask", encode(shown[0].mask))]
    for run, rank, one in zip(runs, entry.ranks, shown, strict=True):
        caption = f"{run.label}, rank {rank:.0f}"
        pictures.append((caption, encode_overlay(one.overlay, one.mask, one.window)))
    figures = "".join(figure(caption, uri, image.filename) for caption, uri in pictures)
    kind = f"{image.class_name}, {image.defect_type}"
    return (
        f'<div class="row"><p class="who"><b>{escape(kind)}</b> '
        f"<code>{escape(image.filename)}</code></p>"
        f'<div class="pictures">{figures}</div></div>'
    )
