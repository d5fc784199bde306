"""The evaluation of a run: metrics.json, report, calibration."""

from collections.abc import Mapping

from promptmad_jax.evaluation.constants import Calibration
from promptmad_jax.evaluation.spread import spread
from promptmad_jax.methods.reconstruction.splits import Splits, further_prompts
from promptmad_jax.methods.reconstruction.trained import TrainedDetector
from promptmad_jax.methods.results import write_results
from promptmad_jax.runs.workdir import Workdir
from promptmad_jax.runtime.processes import is_writer


def finish(
    detector: TrainedDetector,
    splits: Splits,
    files: Workdir,
    output: Workdir,
    prompts: int = 1,
    origin: Mapping[str, str] | None = None,
    calibration: Calibration | None = None,
) -> dict:
    """Evaluates a run with everything: writes metrics.json and the report, prints the table.

    Args:
        detector: with the newest weights; `eval.checkpoint` may select older ones of `files`.
        prompts: how many training images of each class take their turn as its prompt. The figures
            are those of the first; `prompts` in metrics.json has the spread over all.
        origin: entries of the protocol where they are not those of a run.
        calibration: constants to keep; None reads them off the images of `splits`.
    """
    others = further_prompts(detector.config, splits.train, prompts)
    if calibration is None:
        detector, calibration = detector.choose(splits, files)
    report = detector.report(output.path / "report")
    result = detector.evaluate(splits, calibration, report)
    result["protocol"] |= origin or {}
    if others:
        results = (_evaluate_anew(detector.with_prompts(other), splits) for other in others)
        result["prompts"] = spread([result, *results])
    if is_writer():
        # Only now: an interrupted evaluation leaves the former one as it was.
        output.write_calibration(calibration)
        write_results(result, report, files, output)
    return result


def _evaluate_anew(detector: TrainedDetector, splits: Splits) -> dict:
    """The metrics.json object with constants of its own for the detector's prompts."""
    return detector.evaluate(splits, detector.calibrate(splits))
