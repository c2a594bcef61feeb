"""Kernels run on the GPU that is here, or in Triton's interpreter, which has to be told early."""

import os

import torch

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
