"""What knows DeepSpeed: its JSON config, the engine that it builds, and where it keeps weights."""

import os
import warnings

import torch

if not torch.cuda.is_available():  # read at DeepSpeed's import, which else warns in each rank that it found no GPU
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed.*")
# ZeRO lays the weights of an LSTM elsewhere than cuDNN would, which copies them in each pass, and says so.
warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk")
