"""The package: what it is, what it needs, which versions work together.

Every upper bound is the next major version, or the next minor one where a project breaks things there. The lower bounds
leave room for Python 3.10, whose last pandas, scikit-learn and scipy are older than those of 3.12.
"""

from __future__ import annotations

import re
from pathlib import Path

from setuptools import Extension, find_packages, setup

ROOT = Path(__file__).resolve().parent
VERSION = re.search(r'^__version__ = "([^"]+)"', (ROOT / "ms_medqa/__init__.py").read_text("utf-8"), re.MULTILINE)
assert VERSION is not None
README = ROOT / "README.md"

CORE = [
    "mindspore>=2.7.1,<2.11",
    "packaging>=23",
    # MindSpore's wheel asks for numpy>=1.25 alone, yet its compiled modules break under NumPy 2.
    "numpy>=1.25,<2",
    "pandas>=2.1,<4",
    "openpyxl>=3.1,<4",
    # Later releases refuse to be imported beside NumPy 1.
    "pyarrow>=15,<26",
    "scikit-learn>=1.3,<2",
    "pydantic>=2.6,<3",
    "pyyaml>=6.0.1,<7",
    "safetensors>=0.4.3,<1",
    "tokenizers>=0.20,<1",
    "sentencepiece>=0.2,<0.3",
    # Faster than tokenizers in a conversion; without it, everything works.
    "fastokens>=0.3.5,<0.4",
    "jinja2>=3.1.4,<4",
    "tqdm>=4.66,<5",
    "matplotlib>=3.8,<4",
    "tensorboardX>=2.6.2,<3",
    "jieba>=0.42.1,<0.43",
    "rouge-chinese>=1.0.3,<2",
    "rouge-score>=0.1.2,<0.2",
    "sacrebleu>=2.4,<3",
    "scipy>=1.11,<2",
]
SERVE = ["fastapi>=0.115,<1", "uvicorn>=0.30,<1"]
# The page opens only those of Gradio's routes that it needs, which another release may name otherwise.
WEB = [*SERVE, "gradio>=6.31,<6.32"]
EXTRAS = {
    # The server is tested with the clients that its users have.
    "test": [
        "pytest>=8,<10",
        "pytest-xdist>=3.7,<4",
        "ruff>=0.17,<0.18",
        *WEB,
        "httpx>=0.27,<1",
        "openai>=1.60,<4",
        # Drives a Chromium that is there already.
        "playwright>=1.50,<2",
    ],
    "parity": ["torch>=2.4,<3", "transformers>=4.51,<6", "peft>=0.15,<1", "tiktoken>=0.7,<1", "lm-eval>=0.4.9,<0.5"],
    # Reads PyTorch pickles with its loader for plain weights; earlier releases let code through that loader.
    "import-bin": ["torch>=2.10,<3"],
    # The report needs nothing beyond the core; the name is there for scripts that ask for it.
    "report": [requirement for requirement in CORE if requirement.startswith(("matplotlib", "jinja2"))],
    "serve": SERVE,
    "web": WEB,
}

# Not a module of Python: functions that MindSpore calls. Without a C++ compiler that knows OpenMP all works, slower.
KERNELS = "ms_medqa/backend/kernels"
FEW_ROWS = Extension(
    "ms_medqa.backend._few_rows",
    [f"{KERNELS}/few_rows.cc", f"{KERNELS}/decoder_step.cc"],
    depends=[f"{KERNELS}/few_rows.h", f"{KERNELS}/lanes.h"],
    extra_compile_args=["-O3", "-fopenmp", "-Wno-psabi"],
    extra_link_args=["-fopenmp"],
    language="c++",
    optional=True,
)

setup(
    name="ms_medqa",
    version=VERSION.group(1),
    description="Medical question answering on MindSpore: from raw records to a tuned model that answers",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="the ms_medqa authors",
    license="Apache-2.0",
    packages=find_packages(include=["ms_medqa", "ms_medqa.*"]),
    package_data={
        "ms_medqa": ["assets/**", "**/*.yaml", "**/*.json", "**/*.jinja", "**/*.html", "**/*.css", "**/*.js"]
    },
    ext_modules=[FEW_ROWS],
    python_requires=">=3.10",
    install_requires=CORE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["ms-medqa = ms_medqa.cli.main:main"]},
    zip_safe=False,
)
