"""Compares false-alarm rates measured on good images with the intervals stated for them.

    python -m tools.measure_rates --data_dir=data --weights=b0.npz --output=rates.jsonl
    python -m tools.measure_rates --output=rates.jsonl --table

The normal images of each class, of both splits of a prepared anomaly_folder, are split at random
again and again. A first part of 30, of 100 or of all images makes a memory and sets the thresholds,
at most 100 of the others are scored as new. Nothing is trained. Splits that the file lists already
are left out. The second command prints the table of docs/line.md.
"""

import functools
import json
import pathlib

import jax
import numpy as np
from absl import flags
from scipy import stats

from promptmad_jax.config import Config, parse, relocated
from promptmad_jax.data.image_set import ImageSet, load_image_set
from promptmad_jax.evaluation.metrics.metrics import image_scores
from promptmad_jax.evaluation.thresholds import Rates, Thresholds, normal_scores, set_thresholds
from promptmad_jax.methods.reconstruction.assembly import assemble
from promptmad_jax.models.reconstruction.memory import Memory, match, search
from promptmad_jax.runtime import cli
from promptmad_jax.runtime.config_file import load_config
from promptmad_jax.runtime.paths import define_path
from promptmad_jax.training.memory import make_memory

_DATA_DIR = define_path("data_dir", "folder of a prepared anomaly_folder")
_WEIGHTS = define_path("weights", "of EfficientNetV2-B0")
_OUTPUT = define_path("output", "JSON lines, to which results are added", required=True)
_SPLITS = flags.DEFINE_integer("splits", 20, "random splits per class and size")
_TABLE = flags.DEFINE_bool("table", False, "print the table of the results that are there")

_ALL, _SIZES, _RATES = 0, (30, 100, 0), (0.05, 0.02)
_SHARE, _FEWEST, _NEW, _DEFECTIVE, _BATCH = 0.7, 10, 100, 60, 16


def main(argv: list[str]) -> None:
    """Measures what is missing in the file, or prints its table."""
    del argv
    path = pathlib.Path(_OUTPUT.value)
    rows = list(map(json.loads, path.read_text().splitlines())) if path.exists() else []
    if _TABLE.value:
        print("\n".join(table(rows)))
        return
    config = relocated(parse(load_config("promptmad_folder.py")), _DATA_DIR.value, _WEIGHTS.value)
    known = {(row["cls"], row["size"], row["seed"]) for row in rows}
    classes = list(_classes(config))
    for seed in range(_SPLITS.value):
        for name, good, bad in classes:
            for size in _SIZES:
                count = size or int(len(good) * _SHARE)
                if count > len(good) - _FEWEST or (name, size, seed) in known:
                    continue
                order = np.random.default_rng(seed).permutation(len(good))
                parts = good[order[:count]], good[order[count:]][:_NEW], bad
                facts = {"cls": name, "m": count, "size": size, "seed": seed}
                for row in _split(config, *parts):
                    with path.open("a") as file:
                        file.write(json.dumps(facts | row) + "\n")


def _classes(config: Config):
    """Yields the name of each class, and the patch features of its good and defective images."""
    data = config.data
    sets = [
        load_image_set(data.dataset, data.data_dir, split, data.image_size)
        for split in ("train", "test")
    ]
    features = [_features(config, images) for images in sets]
    for k, name in enumerate(sets[0].class_names):
        rows = [(images.class_ids == k, images.labels == 0) for images in sets]
        parts = zip(features, rows, strict=True)
        good = np.concatenate([x[own & normal] for x, (own, normal) in parts])
        own, normal = rows[1]
        yield name, good, features[1][own & ~normal][:_DEFECTIVE]


def _features(config: Config, images: ImageSet) -> np.ndarray:
    assembly = assemble(config, (), None, np.zeros((0, 1, 1, 3), np.uint8))
    compute = jax.jit(lambda batch: assembly.detector.features(assembly.frozen, batch).patches)
    return _batched(compute, images.images)


def _batched(compute, *arrays: np.ndarray) -> np.ndarray:
    """Batches of one size, the last filled up with its last row."""
    count, parts = len(arrays[0]), []
    for start in range(0, count, _BATCH):
        rows = np.minimum(np.arange(start, start + _BATCH), count - 1)
        parts.append(np.asarray(compute(*(np.asarray(x[rows]) for x in arrays))))
    return np.concatenate(parts)[:count]


def _split(config: Config, calibration: np.ndarray, new: np.ndarray, bad: np.ndarray):
    """Yields the facts of one split at each rate."""
    ids = np.zeros(len(calibration), np.int32)
    memory = make_memory(calibration, ids, ("class",), config.memory).memory
    own = np.arange(len(calibration), dtype=np.int32)[: config.eval.threshold_images]
    maps = _maps(memory, calibration[own], own, config.data.image_size)
    pool = config.eval.image_pool
    scores = normal_scores(maps, pool, (), "", True)
    outside = lambda x: _maps(memory, x, np.full(len(x), -1, np.int32), config.data.image_size)
    good, defective = outside(new), outside(bad)
    for rate in _RATES:
        limits = set_thresholds(scores, Rates(rate, 0.01, 0.01))
        low, high = _expected(limits, len(new))
        # The rule of earlier versions: the highest score of a tenth held out.
        before = image_scores(maps[: max(2, len(maps) // 10)], pool).max()
        yield {
            "rate": rate,
            "alarms": int((image_scores(good, pool) > limits.image).sum()),
            "regions": int((good.max((1, 2)) > limits.region).sum()),
            "new": len(new),
            "lo": low,
            "hi": high,
            "recall": float((image_scores(defective, pool) > limits.image).mean()),
            "old_fpr": float((image_scores(good, pool) > before).mean()),
            "old_recall": float((image_scores(defective, pool) > before).mean()),
        }


def _expected(limits: Thresholds, new: int) -> tuple[float, float]:
    """The 95 % interval of the alarms among new images, which are beta-binomial."""
    place = round(limits.rate * (limits.images + 1))
    law = stats.betabinom(new, place, limits.images + 1 - place)
    return tuple(map(float, law.ppf((0.025, 0.975))))


def _maps(memory: Memory, patches: np.ndarray, ids: np.ndarray, size: int) -> np.ndarray:
    """The memory's maps float32 [n, S, S]; `ids` are the images that it knows, -1 for new ones."""

    @jax.jit
    def compute(memory, patches, ids):
        classes = np.zeros(len(ids), np.int32)
        found = match(memory, patches, classes, search(memory, patches, classes, ids, limit=1))
        return jax.image.resize(found.distance, (len(ids), size, size), "bilinear")

    return _batched(functools.partial(compute, memory), patches, ids)


def table(rows: list[dict], rate: float = _RATES[0]) -> list[str]:
    """Lines of the table: splits within the interval, measured rates and recall."""
    lines = []
    for key in sorted({(row["cls"], row["size"] == _ALL, row["m"]) for row in rows}):
        own = [
            row
            for row in rows
            if (row["cls"], row["size"] == _ALL, row["m"]) == key and row["rate"] == rate
        ]
        inside = {
            name: sum(row["lo"] <= row[name] <= row["hi"] for row in own)
            for name in ("alarms", "regions")
        }
        mean = lambda values: 100 * np.mean(values)
        shares = [mean([row[name] / row["new"] for row in own]) for name in inside]
        others = [mean([row[name] for row in own]) for name in ("recall", "old_fpr", "old_recall")]
        counts = [f"{count} of {len(own)}" for count in inside.values()]
        figures = [f"{value:.1f} %" for value in (*shares, *others)]
        lines.append(f"| {' | '.join([f'{key[0]}, {key[2]}', *counts, *figures])} |")
    return lines


if __name__ == "__main__":
    cli.run(main)
