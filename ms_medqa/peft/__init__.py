"""LoRA: inject, freeze, save and load in the Hugging Face PEFT format, merge. Knows nothing of training."""

from ms_medqa.peft.adapter import Adapter, read_adapter
from ms_medqa.peft.base import check_base
from ms_medqa.peft.delta import Change, changes, unties
from ms_medqa.peft.dropout import DropoutKeys, add_embedding_noise
from ms_medqa.peft.inject import count_parameters, inject_lora, lora_layers, merge, trainable_parameters
from ms_medqa.peft.load import check_adapter, load_adapter
from ms_medqa.peft.lora import LoraLinear
from ms_medqa.peft.save import save_adapter

__all__ = [
    "Adapter",
    "Change",
    "DropoutKeys",
    "LoraLinear",
    "add_embedding_noise",
    "changes",
    "check_adapter",
    "check_base",
    "count_parameters",
    "inject_lora",
    "load_adapter",
    "lora_layers",
    "merge",
    "read_adapter",
    "save_adapter",
    "trainable_parameters",
    "unties",
]
