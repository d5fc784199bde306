"""Tables of the defect types, from `multi_type` in metrics.json."""

from collections.abc import Mapping
from dataclasses import dataclass

from promptmad_jax.evaluation.metrics.defect_types import FIGURES
from promptmad_jax.evaluation.zero_shot_evaluate import FILTERED, VOCABULARIES
from promptmad_jax.reporting.tables import TYPE_HEADINGS
from promptmad_jax.reporting.type_pictures import Colour, colour


@dataclass(frozen=True, eq=False)
class TypeTables:
    """The figures of the defect types, as fractions.

    Attributes:
      legend: name, word in the prompts and colour of each type.
      means: vocabulary -> its explanation and its figures, averaged over the products.
      columns: headings of `states`, which has state -> figure of each column.
      confusion: true state -> predicted state -> pixels and their share of the true state's;
        empty if no product was scored with its own types.
    """

    legend: list[tuple[str, str, Colour]]
    means: dict[str, tuple[str, Mapping]]
    columns: list[str]
    states: dict[str, list[float | None]]
    confusion: dict[str, dict[str, tuple[int, float | None]]]


def make_type_tables(multi_type: Mapping) -> TypeTables:
    """Arranges the figures of both vocabularies."""
    blocks = {name: multi_type[name] for name in VOCABULARIES if name in multi_type}
    # A state of which no product has a pixel has no figures.
    states = dict.fromkeys(
        state
        for block in blocks.values()
        for state, values in block["types"].items()
        if values["defined_classes"]
    )
    return TypeTables(
        [(*pair, colour(k)) for k, pair in enumerate(multi_type["words"].items(), start=1)],
        {name: (VOCABULARIES[name], block["mean"]) for name, block in blocks.items()},
        [f"{TYPE_HEADINGS[key]}, {name}" for name in blocks for key in FIGURES],
        {
            state: [b["types"].get(state, {}).get(key) for b in blocks.values() for key in FIGURES]
            for state in states
        },
        _confusion(blocks[FILTERED]["confusion"]) if FILTERED in blocks else {},
    )


def _confusion(confusion: Mapping) -> dict[str, dict[str, tuple[int, float | None]]]:
    names = confusion["names"]
    return {
        name: {
            seen: (count, count / sum(counts) if any(counts) else None)
            for seen, count in zip(names, counts, strict=True)
        }
        for name, counts in zip(names, confusion["pixels"], strict=True)
    }
