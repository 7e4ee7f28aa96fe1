"""LoRA: inject, freeze, save and load in the Hugging Face PEFT format, merge. Knows nothing of training."""

from ms_medqa.peft.adapter import Adapter, load_adapter, read_adapter, save_adapter
from ms_medqa.peft.dropout import DropoutKeys
from ms_medqa.peft.inject import count_parameters, inject_lora, lora_layers, merge, trainable_parameters
from ms_medqa.peft.lora import LoraLinear

__all__ = [
    "Adapter",
    "DropoutKeys",
    "LoraLinear",
    "count_parameters",
    "inject_lora",
    "load_adapter",
    "lora_layers",
    "merge",
    "read_adapter",
    "save_adapter",
    "trainable_parameters",
]
