"""OneNIP's inference and training in PyTorch and here, in one run: images a second.

Run from the repository: `python tools/measure_against_torch.py inference [BATCH ...]`, or
`... training`, whose batch is of 8. Needs torch, transformers and a C++ compiler. EfficientNet-B4
to its last tap and the model at the published widths, 224 px, float32, random weights, which do not
matter for the speed. PyTorch gets all that helps it: the backbone cut, the encoded prompt, the mask
and in training the clean images' features kept, `torch.compile`, at inference with freezing (which
folds BatchNorm), channels-last, and a malloc that keeps what is freed. Its training step has no
dropout, jitter and making of pseudo-anomalies, which ours has. Timed in turn, PyTorch, ours,
PyTorch, ours; medians.
"""

import importlib.util
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
REPEATS, TRAINING_BATCH = 9, 8
# For PyTorch, as `promptmad_jax.runtime.cpu.memory` has it for ours.
KEEP_FREED = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(2**31 - 1),
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
}


def median_seconds(call, *inputs):
    """Of REPEATS calls after two that warm up."""
    seconds = []
    for _ in range(REPEATS + 2):
        start = time.perf_counter()
        call(*inputs)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[2:])


def torch_model():
    """The lean model, NCHW images to the reconstruction's and the refiner's map; and its parts."""
    import torch
    from torch import nn
    from torch.nn import functional as F
    from transformers import EfficientNetConfig, EfficientNetModel

    path = ROOT / "tests" / "goldens" / "make_onenip_small.py"
    spec = importlib.util.spec_from_file_location("onenip_in_torch", path)
    parts = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = parts
    spec.loader.exec_module(parts)
    sizes = parts.Sizes((14, 14), 272, 256, 8, 1024, 128, 4, 4, 7, 224)
    blocked = parts.blocked(sizes)
    parts.blocked = lambda _: blocked

    class Lean(nn.Module):
        def __init__(self):
            super().__init__()
            config = EfficientNetConfig(
                image_size=380, width_coefficient=1.4, depth_coefficient=1.8, hidden_dim=1792
            )
            backbone = EfficientNetModel(config)
            self.stem, self.blocks = backbone.embeddings, backbone.encoder.blocks[:22]
            self.model = parts.Reconstruction(sizes, parts.OneNIPDecoder)
            self.register_buffer("prompt", torch.randn(1, 196, 256))

        def neck(self, x):
            x, levels = self.stem(x), []
            for i, block in enumerate(self.blocks):
                x = block(x)
                if i in (1, 5, 9, 21):
                    levels.append(F.interpolate(x, (14, 14), mode="bilinear", align_corners=True))
            return torch.cat(levels, 1).permute(0, 2, 3, 1)

        def forward(self, x):
            neck = self.neck(x)
            prompt = self.prompt.expand(len(neck), -1, -1)
            error = self.model.decode(prompt, self.model.encode(neck)) - neck
            distance = error.square().sum(-1, keepdim=True).sqrt().permute(0, 3, 1, 2)
            logit = self.model.seghead(error.abs())
            return self.model.enlarged(distance), torch.sigmoid(self.model.enlarged(logit))

    return Lean().eval(), parts


def use_all_of(torch):
    """All cores; and denormal numbers as zeros, as XLA has them: random weights make many of them,
    which cost Intel's processors nine tenths of the time."""
    torch.set_num_threads(os.cpu_count())
    if not torch.set_flush_denormal(True):
        sys.exit("this processor cannot flush denormal numbers to zero: the comparison is not fair")


def time_torch(batches):
    import torch
    import torch._inductor.config

    torch._inductor.config.freezing = True
    use_all_of(torch)
    (model, _), rates = torch_model(), {}
    with torch.no_grad():
        for batch in batches:
            images = torch.randn(batch, 3, 224, 224)
            rates[f"PyTorch lean, batch {batch}"] = median_seconds(model, images)
            last = torch.channels_last
            for name, order in (("compiled", torch.contiguous_format), ("channels-last", last)):
                ready, x = model.to(memory_format=order), images.to(memory_format=order)
                compiled = torch.compile(ready)
                rates[f"PyTorch {name}, batch {batch}"] = median_seconds(compiled, x)
    return {name: int(name.rpartition(" ")[2]) / value for name, value in rates.items()}


def time_torch_training():
    import torch

    use_all_of(torch)
    lean, parts = torch_model()
    model = lean.model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-4)
    images = torch.randn(TRAINING_BATCH, 3, 224, 224)
    clean, prompt = torch.randn(2, TRAINING_BATCH, 14, 14, 272)
    masks = (torch.rand(2 * TRAINING_BATCH, 224, 224) > 0.9).float()
    rates = {}

    def step(neck, losses):
        with torch.no_grad():
            pseudo = neck(images)
        optimizer.zero_grad()
        found = losses(model, torch.cat([clean, pseudo]), prompt, masks)
        (found["mse"] + 0.5 * found["dice"]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    for name, neck, losses in (
        ("lean", lean.neck, parts.losses),
        ("compiled", torch.compile(lean.neck), torch.compile(parts.losses)),
    ):
        rates[f"PyTorch {name}, training"] = TRAINING_BATCH / median_seconds(step, neck, losses)
    return rates


def our_subjects():
    """OneNIP and PromptMAD: each a configuration and a model with random weights."""
    sys.path.insert(0, str(ROOT))
    from promptmad_jax.runtime.cpu.memory import keep_freed_memory
    from promptmad_jax.runtime.cpu.vector_width import use_wide_vectors

    keep_freed_memory()
    use_wide_vectors()
    from promptmad_jax.config import parse
    from promptmad_jax.methods.reconstruction.random_detector import RandomDetector
    from promptmad_jax.runtime.config_file import load_config

    for name in ("onenip_mvtec.py", "promptmad_mvtec.py"):
        config = parse(load_config(name))
        yield config, RandomDetector(config, "random", 2)


def time_ours(batches):
    rates = {}
    for config, subject in our_subjects():
        import jax

        for batch in batches:
            inputs = (*subject.weights, subject.frozen, subject.bank, *subject.images(batch))
            maps = jax.jit(subject.detector.maps).lower(*inputs).compile()
            seconds = median_seconds(lambda f, *x: jax.block_until_ready(f(*x)), maps, *inputs)
            rates[f"{config.model}, batch {batch}"] = batch / seconds
    return rates


def time_our_training():
    rates = {}
    for config, subject in our_subjects():
        import jax

        trainer, _ = subject.trainer(TRAINING_BATCH)
        seconds = median_seconds(lambda step: jax.block_until_ready(step()), trainer)
        rates[f"{config.model}, training"] = TRAINING_BATCH / seconds
    return rates


def main():
    arguments = sys.argv[1:] or ["inference"]
    if arguments[0] not in ("inference", "training"):
        sys.exit(__doc__)
    for who in ("torch", "ours") * 2:
        # A process each: the thread pools of two frameworks disturb one another.
        command = [sys.executable, __file__, f"--{who}", *arguments]
        environment = os.environ | (KEEP_FREED if who == "torch" else {})
        answer = subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        )
        for name, rate in json.loads(answer.stdout.splitlines()[-1]).items():
            print(f"{name:32} {rate:6.2f} images/s", flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["--torch", "training"]:
            print(json.dumps(time_torch_training()))
        case ["--ours", "training"]:
            print(json.dumps(time_our_training()))
        case ["--torch" | "--ours" as who, "inference", *sizes]:
            timed = time_torch if who == "--torch" else time_ours
            print(json.dumps(timed([int(size) for size in sizes] or [8, 1])))
        case _:
            main()
