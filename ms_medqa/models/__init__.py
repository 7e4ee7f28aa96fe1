"""Decoders as MindSpore Cells and the reading of their checkpoints. Knows nothing of LoRA or training."""

from ms_medqa.config.assets import resolve_model
from ms_medqa.models.config import ModelConfig
from ms_medqa.models.decoder import CausalLM
from ms_medqa.models.loading import load_model

__all__ = ["CausalLM", "ModelConfig", "load_model", "resolve_model"]
