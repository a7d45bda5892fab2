"""Engine tests share two cores with each other: one thread each. Their toy networks are those of the model tests."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
torch.set_num_threads(1)
