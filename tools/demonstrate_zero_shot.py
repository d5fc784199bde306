"""Shows that the zero-shot parts work together, on drawn pictures. A demonstration, no benchmark.

    PYTHONPATH=. python tools/demonstrate_zero_shot.py --folder=FOLDER [--clip_steps=1500]

1. A tiny CLIP learns pictures and captions of the eight synthetic products by the contrastive loss
   alone; it sees no mask. Half of its pictures are close-ups. All are of another seed than the data
   set's. The real CLIP has seen the world; this one has seen these products, also those held out.
2. `prepare` draws the data set; `train` runs DAPO and MultiADS on the test split of six products
   with its masks, and the floor without training; each is evaluated on the two others.
3. `predict` scores held-out pictures with words of their own defects, of others, and with both.

FOLDER keeps everything, and what is there is not made again.
"""

import json
import pathlib
import subprocess
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from flax import nnx, traverse_util
from PIL import Image
from safetensors.numpy import save_file

from promptmad_jax.clip.config import ClipConfig, ClipTextConfig, ClipVisionConfig
from promptmad_jax.clip.text import ClipText
from promptmad_jax.clip.tokenizer import from_merges, pad_rows
from promptmad_jax.clip.transformer import graph_and_shapes, random_params, run_layers
from promptmad_jax.clip.vision import IMAGE_MEAN, IMAGE_STD, ClipVision
from promptmad_jax.clip.weights.clip import write_format
from promptmad_jax.clip.weights.config_file import write_config
from promptmad_jax.data.defect_types.taxonomy import find_taxonomy
from promptmad_jax.data.preprocess import normalize, resize_image
from promptmad_jax.data.synthetic.scenes import CLASS_NAMES, GOOD, defect_types, render_sample
from promptmad_jax.prompts.hand_written import written_phrases

_FOLDER = flags.DEFINE_string("folder", None, "where everything is kept", required=True)
_CLIP_STEPS = flags.DEFINE_integer("clip_steps", 1500, "contrastive steps", lower_bound=1)
_PER_KIND = flags.DEFINE_integer("per_kind", 40, "pictures of each product and defect for CLIP")
_PER_DEFECT = flags.DEFINE_integer("per_defect", 12, "test pictures of each product and defect")
_EPOCHS = flags.DEFINE_integer("epochs", 5, "of DAPO and MultiADS", lower_bound=1)

TARGET = ("brushed_metal", "spur_gear")
SOURCE = tuple(name for name in CLASS_NAMES if name not in TARGET)
KINDS = tuple((name, defect) for name in CLASS_NAMES for defect in (GOOD, *defect_types(name)))
SEED, PICTURE_SEED = 0, 1000
DRAWN, SIZE, PATCH, CONTEXT, MERGES = 128, 64, 8, 48, 400
SAVED_EVERY = 25
WORDS = {  # for `predict`, on brushed metal with scratches
    "own": "scratch",
    "other": "misprint",
    "both": "scratch,misprint",
}


def render(job):
    """An image uint8 [128, 128, 3] and its mask."""
    name, defect, index = job
    return render_sample(PICTURE_SEED, name, "train", defect, index, DRAWN)


def pictures(folder, count):
    """Images uint8 [kinds, count, 128, 128, 3] and masks bool."""
    path = folder / "pictures.npz"
    if not path.exists():
        jobs = [(*kind, index) for kind in KINDS for index in range(count)]
        with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
            images, masks = zip(*pool.map(render, jobs, chunksize=16), strict=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(folder / "drawing.npz", images=np.stack(images), masks=np.stack(masks))
        (folder / "drawing.npz").rename(path)
    with np.load(path) as file:
        return [file[name].reshape(len(KINDS), count, *file[name].shape[1:]) for name in file]


def phrases():
    """Of each kind every hand-written phrase, with the product's name and without."""
    taxonomy = find_taxonomy("synthetic_mvtec", "", ())
    texts = []
    for name, defect in KINDS:
        word = "damage" if defect == GOOD else taxonomy.words[taxonomy.id_of(defect) - 1]
        state = int(defect != GOOD)
        spoken = (name.replace("_", " "), "object")
        texts.append([text for one in spoken for text in written_phrases((word,), one)[state]])
    return texts


def learn_tokenizer(texts):
    """Byte pairs that are frequent in the words of the texts (Sennrich et al., 2016)."""
    words = Counter(word for group in texts for text in group for word in text.lower().split())
    split = {(*word[:-1], f"{word[-1]}</w>"): count for word, count in words.items()}
    merges = []
    for _ in range(MERGES):
        pairs = Counter()
        for symbols, count in split.items():
            for pair in pairwise(symbols):
                pairs[pair] += count
        if not pairs:
            break
        merges.append(max(pairs, key=lambda pair: (pairs[pair], pair)))
        split = {merged(symbols, merges[-1]): count for symbols, count in split.items()}
    return from_merges(merges)


def merged(symbols, pair):
    """The symbols with every occurrence of the pair joined."""
    joined = []
    for symbol in symbols:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return tuple(joined)


def clip_config(tokenizer):
    tower = {"projection": 64, "heads": 2}
    text = ClipTextConfig(
        **tower,
        width=64,
        hidden=256,
        layers=2,
        vocabulary=len(tokenizer),
        context=CONTEXT,
        eos_id=tokenizer.end,
    )
    vision = ClipVisionConfig(**tower, width=96, hidden=384, layers=4, image=SIZE, patch=PATCH)
    return ClipConfig(text, vision)


def view(rng, image, mask):
    """The whole picture, or a close-up with a part of the defect in it; turned and mirrored."""
    if rng.integers(2):
        at = rng.integers(0, DRAWN, 2)
        if mask.any():
            at = rng.choice(np.argwhere(mask))
        top, left = np.clip(at - rng.integers(0, SIZE, 2), 0, DRAWN - SIZE)
        picture = image[top : top + SIZE, left : left + SIZE]
    else:
        picture = resize_image(image, SIZE)
    picture = np.rot90(picture, rng.integers(4))
    return picture[:, ::-1] if rng.integers(2) else picture


def batch_of(step, images, masks, texts):
    """A picture and a caption of every kind."""
    rng = np.random.default_rng([SEED, step])
    rows = rng.integers(images.shape[1], size=len(KINDS))
    seen = [view(rng, images[k, row], masks[k, row]) for k, row in enumerate(rows)]
    return np.stack(seen), np.stack([own[rng.integers(len(own))] for own in texts])


def make_step(config, tx):
    """A step of the contrastive loss (Radford et al., 2021)."""
    text_graph = graph_and_shapes(ClipText, config.text)[0]
    vision_graph = graph_and_shapes(ClipVision, config.vision)[0]
    mean, std = (np.asarray(x, np.float32) for x in (IMAGE_MEAN, IMAGE_STD))
    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)
    cross_entropy = optax.softmax_cross_entropy_with_integer_labels

    def loss_fn(params, images, ids):
        vision = nnx.merge(vision_graph, params["vision"])
        x, _ = run_layers(vision.layers, vision.embed(normalize(images, mean, std)))
        seen = unit(vision.pool(x))
        said = unit(nnx.merge(text_graph, params["text"])(ids))
        logits = jnp.exp(params["logit_scale"]) * seen @ said.T
        labels = jnp.arange(len(logits))
        loss = cross_entropy(logits, labels).mean() + cross_entropy(logits.T, labels).mean()
        return loss / 2, (logits.argmax(1) == labels).mean()

    @jax.jit
    def step(params, opt_state, images, ids):
        (loss, right), grads = jax.value_and_grad(loss_fn, has_aux=True)(params, images, ids)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss, right

    return step


def train_clip(folder, steps):
    """Writes a CLIP in Hugging Face's form to `folder`."""
    texts = phrases()
    tokenizer = learn_tokenizer(texts)
    rows = [[[tokenizer.start, *tokenizer.encode(t), tokenizer.end] for t in own] for own in texts]
    ids = [pad_rows(own, CONTEXT, tokenizer.end) for own in rows]
    config = clip_config(tokenizer)
    keys = jax.random.split(jax.random.key(SEED))
    params = {
        "text": random_params(ClipText, config.text, keys[0]),
        "vision": random_params(ClipVision, config.vision, keys[1]),
        "logit_scale": jnp.asarray(np.log(1 / 0.07), jnp.float32),
    }
    schedule = optax.warmup_cosine_decay_schedule(0.0, 1e-3, steps // 10, steps, 1e-5)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=0.05))
    images, masks = pictures(folder.parent, _PER_KIND.value)
    step, window = make_step(config, tx), []
    saved = folder.parent / "clip_state.npz"
    first, (params, opt_state) = load_state(saved, (params, tx.init(params)))
    for number in range(first + 1, steps + 1):
        batch = batch_of(number, images, masks, ids)
        params, opt_state, loss, right = step(params, opt_state, *batch)
        window.append((float(loss), float(right)))
        if number % SAVED_EVERY == 0 or number == steps:
            loss, right = np.mean(window, axis=0)
            print(f"clip step {number}: loss {loss:.3f}, caption found {right:.3f}", flush=True)
            window = []
            save_state(saved, number, (params, opt_state))
    write_clip(folder, params, config, tokenizer)


def save_state(path, step, tree):
    partial = path.with_name("partial.npz")
    np.savez(partial, step, *map(np.asarray, jax.tree.leaves(tree)))
    partial.rename(path)


def load_state(path, tree):
    """The last saved step and its tree; 0 and the one given where there is none."""
    if not path.exists():
        return 0, tree
    with np.load(path) as file:
        step, *leaves = (file[name] for name in file)
    return int(step), jax.tree.unflatten(jax.tree.structure(tree), leaves)


def write_clip(folder, params, config, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    flat = traverse_util.flatten_dict(jax.tree.map(np.asarray, params), sep="/")
    tokenizer.backend.save_pretrained(folder)
    write_config(folder / "config.json", config)
    tensors = write_format(flat, config, "transformers")
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    save_file(tensors, folder / "model.safetensors")


def command(module, *args):
    subprocess.run([sys.executable, "-m", f"promptmad_jax.{module}", *args], check=True)


def prepare(folder):
    command(
        "prepare",
        "--dataset=synthetic_mvtec",
        f"--data_dir={folder / 'data'}",
        f"--image_size={DRAWN}",
        "--train_per_class=1",
        f"--test_good_per_class={_PER_DEFECT.value}",
        f"--test_per_defect={_PER_DEFECT.value}",
    )


def settings(folder, name):
    """The shipped configuration on this CLIP and these products."""
    values = {
        "data.data_dir": folder / "data",
        "data.dataset": "synthetic_mvtec",
        "data.image_size": DRAWN,
        "data.classes": TARGET,
        "clip.weights": folder / "clip",
        "dapo.taps": (4,) if name == "clip_zero_shot" else (1, 2, 3, 4),
        "eval.batch_size": 16,
    }
    if name != "clip_zero_shot":
        values |= {
            "source.dataset": "synthetic_mvtec",
            "source.classes": SOURCE,
            "train.epochs": _EPOCHS.value,
        }
    return [f"--config.{key}={value}" for key, value in values.items()]


def train_and_evaluate(folder, name):
    workdir = folder / name
    config = f"--config={name}.py"
    command("train", config, f"--workdir={workdir}", *settings(folder, name))
    metrics = json.loads((workdir / "metrics.json").read_text())
    figures = {key: metrics["mean"][key] for key in ("image_auroc", "pixel_auroc", "pixel_ap")}
    for vocabulary in ("filtered", "unfiltered"):
        means = metrics["multi_type"][vocabulary]["mean"]
        figures |= {f"{vocabulary}_{key}": means[key] for key in ("auroc", "types_auroc", "f1")}
    return figures


def predict(folder, name):
    """The mean of the map on scratches and beside them, by the words that were given."""
    pictures, masks = folder / "scratched", {}
    pictures.mkdir(exist_ok=True)
    for index in range(8):
        image, mask = render_sample(SEED, TARGET[0], "test", "scratch", 100 + index, DRAWN)
        Image.fromarray(image).save(pictures / f"{index}.png")
        masks[str(index)] = mask
    found = {}
    for kind, words in WORDS.items():
        output = folder / f"predicted_{name}_{kind}"
        run = f"--workdir={folder / name}"
        command("predict", run, f"--defects={words}", f"--output={output}", str(pictures))
        maps = {key: np.load(output / f"{key}.npy") for key in masks}
        on, off = ([np.mean(maps[k][m if on else ~m]) for k, m in masks.items()] for on in (1, 0))
        rows = [json.loads(line) for line in (output / "scores.jsonl").read_text().splitlines()]
        types = Counter(row["type"] for row in rows)
        found[words] = {"on": float(np.mean(on)), "off": float(np.mean(off)), "types": types}
    return found


def main(argv):
    del argv
    folder = pathlib.Path(_FOLDER.value)
    if not (folder / "clip" / "model.safetensors").exists():
        train_clip(folder / "clip", _CLIP_STEPS.value)
    prepare(folder)
    names = ("clip_zero_shot", "multiads_visa_to_mvtec", "dapo_visa_to_mvtec")
    figures = {name: train_and_evaluate(folder, name) for name in names}
    for name in figures:
        figures[name]["words"] = predict(folder, name)
    text = json.dumps(figures, indent=2)
    (folder / "figures.json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    app.run(main)
