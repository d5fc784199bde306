"""The report of a run: one self-contained page with figures, curves and example images."""

from collections.abc import Mapping, Sequence

from etils import epath

from promptmad_jax.evaluation.class_maps import ClassMaps
from promptmad_jax.evaluation.image_scores import ImageScore
from promptmad_jax.reporting.chart_data import training_series
from promptmad_jax.reporting.class_table import make_class_table
from promptmad_jax.reporting.curves import class_curves
from promptmad_jax.reporting.decisions import all_decisions, calibration, class_decisions
from promptmad_jax.reporting.diffusion_strip import StepSource, make_strip
from promptmad_jax.reporting.gallery import make_gallery
from promptmad_jax.reporting.pages import run_facts
from promptmad_jax.reporting.pages.charts import curve_charts, histogram_chart, training_chart
from promptmad_jax.reporting.pages.class_view import ClassView
from promptmad_jax.reporting.pages.defect_types import make_type_tables
from promptmad_jax.reporting.pages.rendering import write_page
from promptmad_jax.reporting.pages.thumbnails import picture_row
from promptmad_jax.reporting.published import Published, published_results
from promptmad_jax.reporting.type_pictures import type_examples
from promptmad_jax.reporting.warnings import memory_alone, run_warnings


class Report:
    """Collects the classes one by one and writes the page.

    Args:
      directory: where `index.html` goes; made if it is missing.
      image_pool: window of the image score. aupro_limit: where the PRO curve ends. Both are those
        of the protocol.
      steps: computes the diffusion steps of images, where the model has a diffusion.
    """

    def __init__(
        self,
        directory: epath.PathLike,
        image_pool: int = 16,
        aupro_limit: float = 0.3,
        steps: StepSource | None = None,
    ):
        self._directory, self._steps = epath.Path(directory), steps
        self._image_pool, self._aupro_limit = image_pool, aupro_limit
        self._views: dict[str, ClassView] = {}
        self.scores: list[ImageScore] = []

    def add(self, class_maps: ClassMaps) -> None:
        """Picks the images of a class and keeps them as thumbnails alone."""
        scores = class_maps.scores(self._image_pool)
        gallery = make_gallery(class_maps, scores, self._image_pool)
        strip = None if self._steps is None else make_strip(class_maps, self._steps)
        types = [] if class_maps.types is None else type_examples(class_maps)
        self._views[class_maps.class_name] = ClassView(
            name=class_maps.class_name,
            anchor=f"class-{len(self._views)}",
            scores=scores,
            labels=class_maps.labels.astype(bool),
            defect_types=class_maps.defect_types,
            curves=class_curves(class_maps, scores, self._aupro_limit),
            groups={title: [picture_row(e) for e in own] for title, own in gallery.groups.items()},
            scales=gallery.scales,
            diffusion=None if strip is None else picture_row(strip),
            types=[picture_row(example) for example in types],
        )
        self.scores += scores_of(class_maps, scores)

    def write(
        self, result: Mapping, manifest: Mapping | None = None, history: Sequence[Mapping] = ()
    ) -> epath.Path:
        """Writes the page.

        Args:
          result: from `Evaluator.result`, of the classes that were added; the image thresholds of
            `result["thresholds"]` are drawn where there are any.
          manifest: of the run, as `runtime.manifest` writes it.
          history: the rows of metrics.jsonl.

        Returns:
          The path of the page.

        Raises:
          UserError: if the page cannot be written.
        """
        manifest, views = manifest or {}, list(self._views.values())
        worst, thresholds = run_facts.worst_class(result["classes"]), image_thresholds(result)
        published = publications(manifest)
        return write_page(
            self._directory,
            "report.html",
            title=manifest["config"]["name"] if "config" in manifest else "Evaluation",
            lead=run_facts.lead(result, manifest),
            result=result,
            warnings=run_warnings(result, manifest),
            decisions=class_decisions(result),
            all_decisions=all_decisions(result),
            calibrated=calibration(result),
            memory_alone=memory_alone(result),
            worst=worst,
            lowest_ap=run_facts.lowest_pixel_ap(result["classes"]),
            class_table=make_class_table(result, published),
            published=published,
            views=self._views,
            shown=list(self._views).index(worst) if worst in self._views else 0,
            curves=curve_charts([view.curves for view in views], list(self._views)),
            histograms=[
                histogram_chart(view.name, view.scores, view.labels, thresholds.get(view.name))
                for view in views
            ],
            thresholds=thresholds,
            types=make_type_tables(result["multi_type"]) if "multi_type" in result else None,
            parts=run_facts.parts(result),
            training=[training_chart(*chart) for chart in training_series(history).items()],
            protocol=run_facts.protocol(result),
            manifest=manifest,
            run=run_facts.run_details(manifest) if manifest else None,
        )


def scores_of(class_maps: ClassMaps, scores: Sequence[float]) -> list[ImageScore]:
    """The image scores of a class with the names of its images."""
    rows = zip(
        class_maps.filenames, class_maps.defect_types, class_maps.labels, scores, strict=True
    )
    return [ImageScore(class_maps.class_name, f, d, int(la), float(s)) for f, d, la, s in rows]


def image_thresholds(result: Mapping) -> dict[str, float]:
    """Class -> the threshold of the image score, if metrics.json has thresholds."""
    if "thresholds" not in result:
        return {}
    return {name: pair["image"] for name, pair in result["thresholds"]["values"].items()}


def publications(manifest: Mapping) -> tuple[Published, ...]:
    """The published figures on the manifest's data set that compare to a detector of its kind."""
    # They were reached with training images of the target, which a zero-shot detector does not see.
    if "config" not in manifest or manifest["config"]["model"] == "zero_shot":
        return ()
    data = manifest["config"]["data"]
    return published_results(data["dataset"], data["image_size"])
