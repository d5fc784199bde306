"""The top of the report: what was measured, on what, the figures, and where to look first."""

from collections.abc import Iterator, Mapping, Sequence

from promptmad_jax.reporting.gallery import FALSE_ALARMS, MISSES
from promptmad_jax.reporting.pages.class_view import ClassView, types, verdict
from promptmad_jax.reporting.pages.page import TIMES, escape
from promptmad_jax.reporting.tables import HEADINGS, percent

MODEL_NAMES = {
    "promptmad": "PromptMAD",
    "onenip": "OneNIP",
    "uniad": "UniAD",
    "zero_shot": "A zero-shot detector",
}


def lead(result: Mapping, manifest: Mapping) -> str:
    """One sentence: model, data set, classes, images, size, steps."""
    counts = result["protocol"]["images"].values()
    normal = sum(count["normal"] for count in counts)
    defective = sum(count["defective"] for count in counts)
    classes = len(result["classes"])
    sizes = " and ".join(f"{h}{TIMES}{w}" for h, w in result["protocol"]["map_size"])
    words = [
        f"{classes} {'class' if classes == 1 else 'classes'}, {normal} normal and {defective} "
        f"defective test images, maps of {sizes} pixels"
    ]
    # A weight file does not say its step.
    if result["protocol"].get("step"):
        words.append(f"after {result['protocol']['step']:,} training steps")
    subject = ""
    if "config" in manifest:
        config = manifest["config"]
        model = MODEL_NAMES.get(config["model"], config["model"])
        subject = f"{model} on {config['data']['dataset']}: "
    return escape(subject + ", ".join(words) + ".")


def tiles(result: Mapping) -> str:
    """The means over the classes."""
    parts, classes = [], len(result["classes"])
    for metric, value in result["mean"].items():
        defined = result["defined_classes"][metric]
        note = "" if defined == classes else f" ({defined} of {classes})"
        parts.append(
            f'<div class="tile"><b>{percent(value)}</b><span>{HEADINGS[metric]}{note}</span></div>'
        )
    note = '<p class="eyebrow">Mean over the classes, percent</p>'
    return f'{note}<div class="tiles">{"".join(parts)}</div>'


def worst_class(result: Mapping) -> str:
    """The class with the lowest image AUROC, among equals that with the lowest pixel AP."""

    def order(name: str) -> tuple[float, float]:
        values = result["classes"][name]
        # What is undefined says nothing against a class.
        return tuple(
            2.0 if values[metric] is None else values[metric]
            for metric in ("image_auroc", "pixel_ap")
        )

    return min(result["classes"], key=order)


def look_first(result: Mapping, views: Sequence[ClassView]) -> str:
    """The worst class in words, with its worst miss and its worst false alarm."""
    name = worst_class(result)
    view = next((view for view in views if view.name == name), None)
    values = result["classes"][name]
    figures = ", ".join(
        f"{HEADINGS[metric]} {percent(values[metric])}"
        for metric in ("image_auroc", "pixel_auroc", "pixel_ap")
        if metric in values
    )
    words = [f'<p class="eyebrow">Worst class</p><h2>{escape(name)}</h2><p>{figures}</p>']
    rows = ""
    if view is not None:
        bars = types(view)
        note = '<p class="soft">Image AUROC by type of defect, number of images</p>'
        words.append(f"<p>{verdict(view)}</p>{note if bars else ''}{bars}")
        words.append(f'<p><a class="go" href="#{view.anchor}">All of {escape(name)}</a></p>')
        rows = "".join(_teaser(view))
    words.append(_lowest_pixel_ap(result, name, views))
    return (
        f'<div class="card first"><div>{"".join(words)}</div><div class="teaser">{rows}</div></div>'
    )


def _teaser(view: ClassView) -> Iterator[str]:
    for title, word in ((MISSES, "Worst miss"), (FALSE_ALARMS, "Worst false alarm")):
        if view.rows[title]:
            yield f"<h4>{word}</h4>{view.rows[title][0]}"


def _lowest_pixel_ap(result: Mapping, worst: str, views: Sequence[ClassView]) -> str:
    """Names the class that is worst to locate defects in, where it is another one."""
    values = {n: v["pixel_ap"] for n, v in result["classes"].items() if v["pixel_ap"] is not None}
    name = min(values, key=values.__getitem__, default=worst)
    if name == worst:
        return ""
    anchor = next((view.anchor for view in views if view.name == name), "classes")
    return (
        f'<p class="soft">Lowest pixel AP: <a href="#{anchor}">{escape(name)}</a>, '
        f"{percent(values[name])}.</p>"
    )
