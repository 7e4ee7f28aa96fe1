"""Answers: sampling, batched decoding on a key/value cache, the question-answering front."""

from ms_medqa.generation.generate import apply_adapter, generate, load_model
from ms_medqa.generation.qa import MedicalQA
from ms_medqa.generation.sampling import SamplingParams

__all__ = ["MedicalQA", "SamplingParams", "apply_adapter", "generate", "load_model"]
