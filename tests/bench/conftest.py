"""Two cores are shared with other tests: one thread each."""

import torch

torch.set_num_threads(1)
