"""Facts about a run as a whole, from metrics.json and manifest.json."""

import json
from collections.abc import Mapping

from promptmad_jax.reporting.pages.rendering import TIMES
from promptmad_jax.reporting.tables import prompt_rows

MODEL_NAMES = {
    "promptmad": "PromptMAD",
    "onenip": "OneNIP",
    "uniad": "UniAD",
    "zero_shot": "A zero-shot detector",
}


def lead(result: Mapping, manifest: Mapping) -> str:
    """One sentence: model, data set, classes, images, size, steps."""
    protocol, classes = result["protocol"], len(result["classes"])
    counts = protocol["images"].values()
    normal, defective = (sum(count[kind] for count in counts) for kind in ("normal", "defective"))
    sizes = " and ".join(f"{h}{TIMES}{w}" for h, w in protocol["map_size"])
    words = f"{classes} {'class' if classes == 1 else 'classes'}, "
    if sizes:
        words += f"{normal} normal and {defective} defective test images, maps of {sizes} pixels"
    else:
        words += "no test images"
    # A weight file does not say its step.
    if protocol.get("step"):
        words += f", after {protocol['step']:,} training steps"
    elif "memory" in protocol:
        words += ", by the memory of normal patches alone: a training-free detector"
    if "config" in manifest:
        config = manifest["config"]
        model = MODEL_NAMES.get(config["model"], config["model"])
        words = f"{model} on {config['data']['dataset']}: {words}"
    return f"{words}."


def worst_class(classes: Mapping[str, Mapping]) -> str | None:
    """The class with the lowest image AUROC, among equals the one with the lowest pixel AP; None
    if no figure is defined."""

    def order(name: str) -> list[float]:
        values = [classes[name][metric] for metric in ("image_auroc", "pixel_ap")]
        # An undefined figure says nothing against a class.
        return [2.0 if value is None else value for value in values]

    defined = any(value is not None for own in classes.values() for value in own.values())
    return min(classes, key=order) if defined else None


def lowest_pixel_ap(classes: Mapping[str, Mapping]) -> str | None:
    """The class whose defects are located worst, None if the pixel AP is defined for none."""
    values = {name: own["pixel_ap"] for name, own in classes.items()}
    known = {name: value for name, value in values.items() if value is not None}
    return min(known, key=known.__getitem__, default=None)


def parts(result: Mapping) -> dict[str, Mapping]:
    """The means of the final map, of the model's other maps, and of the compatibility modes."""
    blocks = result["maps"] | result["compat"]
    rows = {"final": result["mean"]} | {name: block["mean"] for name, block in blocks.items()}
    if "prompts" in result:
        spreads = prompt_rows(result["prompts"])
        rows |= {f"final, {heading}": values for heading, values in spreads.items()}
    return rows


def protocol(result: Mapping) -> dict[str, object]:
    """The choices that the figures depend on; the compatibility modes are listed elsewhere."""
    return {
        key.replace("_", " "): value
        for key, value in result["protocol"].items()
        if key != "compat" and value != {}
    }


def run_details(manifest: Mapping) -> dict[str, object]:
    """The entries of the manifest that a reader looks for, its settings by group, and the rest.

    Settings outside of any group come first, as the group `run`.
    """
    devices, config = manifest["devices"], manifest["config"]
    groups = {key: value for key, value in config.items() if isinstance(value, Mapping)}
    ungrouped = {key: value for key, value in config.items() if key not in groups}
    facts = {
        "Data set": config["data"]["dataset"],
        "Seed": manifest["seed"],
        "Device": f"{devices['count']} {TIMES} {devices['kind']}",
        "Date": manifest["time"][:16].replace("T", " "),
        "Version": manifest["promptmad_jax"],
        "JAX": manifest["packages"]["jax"],
    }
    rest = {key: value for key, value in manifest.items() if key != "config"}
    return {
        "facts": facts,
        "settings": {"run": ungrouped} | groups,
        "manifest": json.dumps(rest, indent=2),
    }
