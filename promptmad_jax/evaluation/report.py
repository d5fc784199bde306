"""One self-contained HTML page of a run: figures, loss curve, telling images of each class."""

import html
import importlib.resources
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from promptmad_jax.evaluation.blocks import METRICS
from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.curves import draw_curves, loss_series
from promptmad_jax.evaluation.gallery import Gallery, Row, make_gallery
from promptmad_jax.evaluation.tables import HEADINGS, percent
from promptmad_jax.runtime.errors import UserError

PAGE = "index.html"
SCALE_NOTE = (
    "Colours share one scale for each class and map, given beside it: dark is the median of the "
    "normal images' pixels, bright the larger of their 99.9 % quantile and the 99 % quantile on "
    "defects. No picture has a scale of its own, so brightness can be compared down a column. The "
    "overlay shows the final map; a blue line marks the edge of the true defect."
)


class Report:
    """Collects the galleries class by class and writes the page.

    Args:
      directory: where `index.html` goes; made where it is missing.
      rows: images in each group of a gallery.
      image_pool: window of the image score, that of the protocol.
    """

    def __init__(self, directory: str | Path, rows: int = 3, image_pool: int = 16):
        self._directory = Path(directory)
        self._rows, self._image_pool = rows, image_pool
        self._galleries: list[Gallery] = []

    def add(self, class_maps: ClassMaps) -> None:
        """Picks the images of a class and keeps them as thumbnails alone."""
        self._galleries.append(make_gallery(class_maps, self._rows, self._image_pool))

    def write(
        self, result: Mapping, manifest: Mapping | None = None, history: Sequence[Mapping] = ()
    ) -> Path:
        """Writes the page.

        Args:
          result: from `Evaluator.result`.
          manifest: of the run, as `runtime.manifest` writes it.
          history: the rows of metrics.jsonl.

        Returns:
          The path of the page.

        Raises:
          UserError: where the page cannot be written.
        """
        facts = run_facts(result, manifest, history)
        title = facts.get("Configuration", "Evaluation")
        page = string.Template(_template()).substitute(
            title=html.escape(title),
            subtitle=html.escape(_subtitle(result)),
            facts=_facts(facts),
            tiles=_tiles(result),
            classes=_class_table(result, self._galleries),
            undefined=_undefined(result["undefined"]),
            parts=_parts_table(result),
            curve=_curve(history),
            galleries=_galleries(self._galleries),
            protocol=_protocol(result["protocol"]),
        )
        return _write(self._directory / PAGE, page)


def run_facts(
    result: Mapping, manifest: Mapping | None, history: Sequence[Mapping]
) -> dict[str, str]:
    """What to say of the run in the head of the page; what nobody wrote down is left out."""
    manifest = manifest or {}
    config = manifest.get("config", {})
    steps = [row["step"] for row in history if row["kind"] == "train"]
    devices = manifest.get("devices", {})
    facts = {
        "Configuration": _entry(config, ("config_name", "name", "model.name")),
        "Data set": _entry(config, ("dataset.name", "data.name", "data.dataset", "dataset")),
        "Steps": f"{max(steps):,}" if steps else _entry(config, ("total_steps", "steps")),
        "Seed": manifest.get("seed"),
        "Device": f"{devices['count']} x {devices['kind']}" if devices else None,
        "Date": str(manifest["time"])[:16].replace("T", " ") if "time" in manifest else None,
        "Version": manifest.get("promptmad_jax"),
        "Map size": ", ".join(f"{h} x {w}" for h, w in result["protocol"]["map_size"]),
    }
    return {name: str(value) for name, value in facts.items() if value not in (None, "")}


def _entry(config: Mapping, paths: Sequence[str]) -> object | None:
    """The first of the dotted paths that leads to a plain value, else None."""
    for path in paths:
        value: object = config
        for name in path.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None and not isinstance(value, Mapping):
            return value
    return None


def _template() -> str:
    resource = importlib.resources.files("promptmad_jax.evaluation") / "report.html"
    return resource.read_text(encoding="utf-8")


def _write(path: Path, page: str) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path}: the report cannot be written ({error.strerror}); choose another output folder"
        ) from error
    return path


def _subtitle(result: Mapping) -> str:
    counts = result["protocol"]["images"].values()
    normal = sum(count["normal"] for count in counts)
    defective = sum(count["defective"] for count in counts)
    classes = len(result["classes"])
    noun = "class" if classes == 1 else "classes"
    return f"{classes} {noun}, {normal} normal and {defective} defective test images"


def _facts(facts: Mapping[str, str]) -> str:
    items = (
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def _tiles(result: Mapping) -> str:
    tiles, classes = [], len(result["classes"])
    for metric in METRICS:
        defined = result["defined_classes"][metric]
        note = "" if defined == classes else f" ({defined} of {classes})"
        tiles.append(
            f'<div class="tile"><b>{percent(result["mean"][metric])}</b>'
            f"<span>{HEADINGS[metric]}{note}</span></div>"
        )
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _cells(values: Mapping) -> str:
    cells = []
    for metric in METRICS:
        value = values.get(metric)
        text = percent(value) if metric in values else ""
        cells.append(f'<td data-value="{"" if value is None else value}">{text}</td>')
    return "".join(cells)


def _heading(first: str, sortable: bool) -> str:
    words = [first, *(HEADINGS[metric] for metric in METRICS)]
    inner = [f'<button type="button">{word}</button>' if sortable else word for word in words]
    return "".join(f'<th scope="col">{word}</th>' for word in inner)


def _class_table(result: Mapping, galleries: Sequence[Gallery]) -> str:
    anchors = {gallery.class_name: index for index, gallery in enumerate(galleries)}
    rows = []
    for name, values in result["classes"].items():
        shown = escaped = html.escape(name)
        if name in anchors:
            shown = f'<a href="#class-{anchors[name]}">{escaped}</a>'
        rows.append(f'<tr><td data-value="{escaped}">{shown}</td>{_cells(values)}</tr>')
    foot = f"<tr><td>mean</td>{_cells(result['mean'])}</tr>"
    foot += f"<tr><td>pooled</td>{_cells(result['pooled'])}</tr>"
    return (
        '<div class="card scroll"><table class="sortable">'
        f"<thead><tr>{_heading('class', True)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody><tfoot>{foot}</tfoot></table></div>"
    )


def _parts_table(result: Mapping) -> str:
    """The means of the maps and compatibility modes beside the final map's."""
    blocks = result["maps"] | result["compat"]
    if not blocks:
        return ""
    rows = [f"<tr><td>final</td>{_cells(result['mean'])}</tr>"]
    for name, block in blocks.items():
        rows.append(f"<tr><td>{html.escape(name)}</td>{_cells(block['mean'])}</tr>")
    return (
        "<h2>Parts of the model and compatibility modes</h2>"
        '<p class="soft">Means over the classes, percent. The class figures are in metrics.json.'
        '</p><div class="card scroll"><table>'
        f"<thead><tr>{_heading('map', False)}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _undefined(undefined: Mapping[str, Mapping[str, str]]) -> str:
    items = []
    for name, reasons in undefined.items():
        for reason in dict.fromkeys(reasons.values()):
            metrics = ", ".join(HEADINGS[key] for key in reasons if reasons[key] == reason)
            items.append(f"<li>{html.escape(name)}: {metrics}: {html.escape(reason)}</li>")
    return f'<p>Undefined (-):</p><ul class="plain">{"".join(items)}</ul>' if items else ""


def _curve(history: Sequence[Mapping]) -> str:
    series = loss_series(history)
    if not series:
        return ""
    key = '<svg viewBox="0 0 22 8"><polyline class="series-{}" points="0,4 22,4"/></svg>'
    legend = "".join(
        f"<li>{key.format(index)}{html.escape(name)}</li>" for index, name in enumerate(series)
    )
    return (
        f'<h2>Training loss</h2><div class="card">{draw_curves(series)}</div>'
        f'<ul class="legend">{legend}</ul>'
    )


def _galleries(galleries: Sequence[Gallery]) -> str:
    if not galleries:
        return ""
    shown = "".join("".join(_gallery(*numbered)) for numbered in enumerate(galleries))
    return f'<h2>Galleries</h2><p class="soft">{html.escape(SCALE_NOTE)}</p>{shown}'


def _gallery(index: int, gallery: Gallery) -> Iterator[str]:
    name = html.escape(gallery.class_name)
    scales = ", ".join(
        f"{html.escape(key)} {low:.3g} to {high:.3g}" for key, (low, high) in gallery.scales.items()
    )
    yield f'<details class="card" id="class-{index}" open>'
    yield f"<summary>{name}<span>scale: {scales}</span></summary>"
    for title, rows in gallery.groups.items():
        if rows:
            yield f"<h3>{title}</h3>"
            yield from map(_row, rows)
    yield "</details>"


def _row(row: Row) -> str:
    filename, kind = html.escape(row.filename), html.escape(row.defect_type)
    figures = "".join(
        f'<figure><img loading="lazy" alt="{caption} of {filename}" src="{uri}">'
        f"<figcaption>{caption}</figcaption></figure>"
        for caption, uri in row.pictures.items()
    )
    return (
        f'<div class="row"><p><b>{row.score:.4g}</b> · {kind} · <code>{filename}</code></p>'
        f'<div class="pictures">{figures}</div></div>'
    )


def _protocol(protocol: Mapping) -> str:
    """The choices of the protocol that are said in words."""
    choices = {
        key.replace("_", " "): str(value)
        for key, value in protocol.items()
        if isinstance(value, str | float)
    }
    return f"<h2>Protocol</h2>{_facts(choices)}"
