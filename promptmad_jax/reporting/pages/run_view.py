"""The lower part of the report: parts of the model, training, and how the run was made."""

import json
from collections.abc import Mapping, Sequence

from promptmad_jax.reporting.curves import training_series
from promptmad_jax.reporting.pages.charts import draw_training, legend
from promptmad_jax.reporting.pages.class_table import plain_table
from promptmad_jax.reporting.pages.page import TIMES, escape, facts, folded
from promptmad_jax.reporting.tables import HEADINGS, prompt_rows, reasons

TRAINING_TITLES = {
    "losses": "Losses",
    "learning_rate": "Learning rate",
    "evaluation": "Evaluation, mean over the classes",
}


def parts_table(result: Mapping) -> str:
    """The means of the maps and compatibility modes beside the final map's."""
    blocks = result["maps"] | result["compat"]
    if not blocks and "prompts" not in result:
        return ""
    rows = {"final": result["mean"]} | {name: block["mean"] for name, block in blocks.items()}
    if "prompts" in result:
        spreads = prompt_rows(result["prompts"])
        rows |= {f"final, {heading}": values for heading, values in spreads.items()}
    note = "Means over the classes, percent. The figures of each class are in metrics.json."
    table = plain_table("map", rows, list(result["mean"]))
    return f'<p class="soft">{note}</p>{table}{_definitions(result["protocol"]["compat"])}'


def _definitions(modes: Mapping[str, str]) -> str:
    """What the compatibility modes mean."""
    items = "".join(f"<li><b>{escape(m)}</b>: {escape(words)}</li>" for m, words in modes.items())
    return f'<ul class="plain soft">{items}</ul>' if items else ""


def decisions(result: Mapping) -> str:
    """What is found and what is raised in vain at the thresholds, where there are some."""
    if "thresholds" not in result:
        return ""
    block = result["thresholds"]
    rows = block["classes"] | {"mean": block["mean"]}
    note = f"Percent, {escape(result['protocol']['decisions'])}."
    return f'<p class="soft">{note}</p>{plain_table("class", rows, list(block["mean"]))}'


def undefined_list(undefined: Mapping[str, Mapping[str, str]]) -> str:
    """Why there is a dash in the table."""
    items = "".join(
        f"<li>{escape(name)}: {metrics}: {escape(why)}</li>"
        for name, metrics, why in reasons(undefined)
    )
    return f'<p>Undefined (-):</p><ul class="plain">{items}</ul>' if items else ""


def training(history: Sequence[Mapping]) -> str:
    """The curves of metrics.jsonl."""
    parts = []
    for key, series in training_series(history).items():
        title = TRAINING_TITLES[key]
        names = [HEADINGS.get(name, name) for name in series]
        drawing = draw_training(dict(zip(names, series.values(), strict=True)), title)
        parts.append(
            f'<figure class="chart card"><figcaption>{title}</figcaption>{drawing}'
            f"{legend(names)}</figure>"
        )
    return f'<div class="training">{"".join(parts)}</div>' if parts else ""


def run_details(result: Mapping, manifest: Mapping) -> str:
    """Seed, device and versions; protocol, configuration and manifest on a click."""
    parts = [facts(run_facts(manifest))] if manifest else []
    protocol = {
        key.replace("_", " "): _plain(value)
        for key, value in result["protocol"].items()
        if key != "compat" and value != {}
    }
    parts.append(folded("Protocol", facts(protocol)))
    if manifest:
        rest = {key: value for key, value in manifest.items() if key != "config"}
        parts.append(folded("Configuration", _settings(manifest["config"])))
        parts.append(folded("Manifest", f"<pre>{escape(json.dumps(rest, indent=2))}</pre>"))
    return "".join(parts)


def run_facts(manifest: Mapping) -> dict[str, str]:
    """The few entries of the manifest that a reader looks for."""
    devices, packages = manifest["devices"], manifest["packages"]
    return {
        "Data set": manifest["config"]["data"]["dataset"],
        "Seed": str(manifest["seed"]),
        "Device": f"{devices['count']} {TIMES} {devices['kind']}",
        "Date": manifest["time"][:16].replace("T", " "),
        "Version": manifest["promptmad_jax"],
        "JAX": packages["jax"],
    }


def _settings(config: Mapping) -> str:
    """Each group of settings as a list; those of the run itself first."""
    plain = {key: value for key, value in config.items() if not isinstance(value, Mapping)}
    groups = {"run": plain} | {k: v for k, v in config.items() if isinstance(v, Mapping)}
    return "".join(
        f"<h4>{escape(name)}</h4>{facts({key: _plain(value) for key, value in group.items()})}"
        for name, group in groups.items()
    )


def _plain(value: object) -> str:
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {_plain(entry)}" for name, entry in value.items())
    if isinstance(value, list | tuple):
        return json.dumps(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    return "(empty)" if value == "" else str(value)
