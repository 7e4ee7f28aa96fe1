"""Training: loss, compiled step, schedules, checkpoints with resume, the loop. Does not know how data was made."""

from ms_medqa.training.callbacks import Callback
from ms_medqa.training.run import TrainResult, train

__all__ = ["Callback", "TrainResult", "train"]
