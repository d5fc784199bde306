"""The report of a run: one self-contained page with figures, curves and telling images."""

from collections.abc import Mapping, Sequence

from etils import epath

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.image_scores import ImageScore
from promptmad_jax.reporting.curves import class_curves
from promptmad_jax.reporting.diffusion_strip import StepSource, make_strip
from promptmad_jax.reporting.explanations import make_explainer
from promptmad_jax.reporting.gallery import make_gallery
from promptmad_jax.reporting.pages.class_charts import charts_block
from promptmad_jax.reporting.pages.class_table import class_table
from promptmad_jax.reporting.pages.class_view import (
    SCALE_NOTE,
    ClassView,
    class_article,
    gallery_rows,
    picker,
    strip_html,
)
from promptmad_jax.reporting.pages.page import (
    TIMES,
    escape,
    folded,
    make_page,
    section,
    write_page,
)
from promptmad_jax.reporting.pages.run_view import (
    decisions,
    parts_table,
    run_details,
    training,
    undefined_list,
)
from promptmad_jax.reporting.pages.summary import lead, look_first, tiles, worst_class
from promptmad_jax.reporting.pages.type_view import TypeView, type_view, types_html
from promptmad_jax.reporting.published import Published, published_results

GALLERY_ROWS = 3
TABLE_NOTE = (
    "Percent. Click on a heading to sort, on a class to see its images. "
    "Red: the lowest of its column."
)


class Report:
    """Collects the classes one by one and writes the page.

    Args:
      directory: where `index.html` goes; made where it is missing.
      rows: images in each group of a gallery.
      image_pool: window of the image score. aupro_limit: where the PRO curve ends; both those of
        the protocol.
      steps: the diffusion steps of images, where the model has a diffusion.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        rows: int = GALLERY_ROWS,
        image_pool: int = 16,
        aupro_limit: float = 0.3,
        steps: StepSource | None = None,
    ):
        self._directory, self._rows = epath.Path(directory), rows
        self._image_pool, self._aupro_limit = image_pool, aupro_limit
        self._steps = steps
        self._views: list[ClassView] = []
        self._types: list[TypeView] = []
        self.scores: list[ImageScore] = []

    def add(self, class_maps: ClassMaps) -> None:
        """Picks the images of a class and keeps them as thumbnails alone."""
        scores = class_maps.scores(self._image_pool)
        explainer = make_explainer(class_maps, scores)
        gallery = make_gallery(class_maps, explainer, self._rows, self._image_pool)
        strip = None if self._steps is None else make_strip(class_maps, self._steps)
        self._views.append(
            ClassView(
                name=class_maps.class_name,
                anchor=f"class-{len(self._views)}",
                scores=scores,
                labels=class_maps.labels.astype(bool),
                defect_types=class_maps.defect_types,
                curves=class_curves(class_maps, scores, self._aupro_limit),
                rows=gallery_rows(gallery),
                scales=gallery.scales,
                strip=strip_html(strip),
            )
        )
        if class_maps.types is not None:
            self._types.append(type_view(class_maps))
        self.scores += scores_of(class_maps, scores)

    def write(
        self, result: Mapping, manifest: Mapping | None = None, history: Sequence[Mapping] = ()
    ) -> epath.Path:
        """Writes the page.

        Args:
          result: from `Evaluator.result`, of the classes that were added; the image thresholds of
            `result["thresholds"]` are drawn where they are there.
          manifest: of the run, as `runtime.manifest` writes it.
          history: the rows of metrics.jsonl.

        Returns:
          The path of the page.

        Raises:
          UserError: where the page cannot be written.
        """
        manifest = manifest or {}
        title = manifest["config"]["name"] if "config" in manifest else "Evaluation"
        published = publications(manifest)
        anchors = {view.name: view.anchor for view in self._views}
        table = class_table(result, published, anchors)
        body = "".join(
            [
                f'<header><p class="eyebrow">Evaluation report</p><h1>{escape(title)}</h1>',
                f'<p class="lead">{lead(result, manifest)}</p></header>',
                tiles(result),
                look_first(result, self._views),
                section(
                    "classes",
                    "Classes",
                    f'<p class="soft">{TABLE_NOTE}</p>',
                    table,
                    _published_note(published),
                    undefined_list(result["undefined"]),
                ),
                section("images", "Class by class", self._class_views(result)),
                section("types", "Defect types", self._type_views(result, manifest)),
                section("decisions", "Decisions at the thresholds", decisions(result)),
                section("parts", "Parts of the model and other protocols", parts_table(result)),
                section("training", "Training", training(history)),
                section("run", "The run", run_details(result, manifest)),
            ]
        )
        return write_page(self._directory, make_page(title, body))

    def _type_views(self, result: Mapping, manifest: Mapping) -> str:
        if "multi_type" not in result:
            return ""
        trained_on = manifest.get("trained_on_test_split")
        warning = f"<p><b>{escape(trained_on['warning'])}.</b></p>" if trained_on else ""
        return warning + types_html(result["multi_type"], self._types)

    def _class_views(self, result: Mapping) -> str:
        if not self._views:
            return ""
        thresholds = image_thresholds(result)
        worst = worst_class(result)
        shown = next((i for i, view in enumerate(self._views) if view.name == worst), 0)
        articles = (
            class_article(view, result["classes"][view.name], thresholds.get(view.name))
            for view in self._views
        )
        return (
            f"{folded('How to read the pictures', f'<p>{SCALE_NOTE}</p>')}{picker(self._views)}"
            f"{charts_block(self._views, result, thresholds, shown)}"
            f'<div id="views" data-shown="{shown}">{"".join(articles)}</div>'
        )


def scores_of(class_maps: ClassMaps, scores: Sequence[float]) -> list[ImageScore]:
    """The image scores of a class with the names of its images."""
    rows = zip(
        class_maps.filenames, class_maps.defect_types, class_maps.labels, scores, strict=True
    )
    return [ImageScore(class_maps.class_name, f, d, int(la), float(s)) for f, d, la, s in rows]


def image_thresholds(result: Mapping) -> dict[str, float]:
    """Class -> the threshold of the image score, where metrics.json has them."""
    if "thresholds" not in result:
        return {}
    return {name: pair["image"] for name, pair in result["thresholds"]["values"].items()}


def publications(manifest: Mapping) -> tuple[Published, ...]:
    """What was published on the data set that the manifest names, of detectors of this kind."""
    # Published with training images of the target, which a zero-shot detector does not see.
    if "config" not in manifest or manifest["config"]["model"] == "zero_shot":
        return ()
    data = manifest["config"]["data"]
    return published_results(data["dataset"], data["image_size"])


def _published_note(published: Sequence[Published]) -> str:
    if not published:
        return ""
    by_source: dict[str, list[str]] = {}
    for entry in published:
        size = f"{entry.method} at {entry.image_size}{TIMES}{entry.image_size}"
        by_source.setdefault(entry.source, []).append(size)
    sources = "; ".join(f"{', '.join(sizes)}: {source}" for source, sizes in by_source.items())
    star = " * is inferred." if any(entry.inferred for entry in published) else ""
    return (
        '<p class="soft">Small figures and colours: this run less the published figure, in points '
        "(green: this run is higher); published columns sort by it. "
        f"Published: {escape(sources)}.{star}</p>"
    )
