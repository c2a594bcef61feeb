"""The Triton pass against the CPU's, on a GPU or in the interpreter; and the code made of it."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.gpu.interpreted import triton_or_skip
from zobench.bench.kernel_checks import CHECKS

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", CHECKS)
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # numpy's float16
def test_the_gpu_pass_is_the_cpus(name: str) -> None:
    """Each check of `make gpu`, which says itself what it compares."""
    triton_or_skip()
    CHECKS[name](DEVICE)


CODE = """
import json, re, sys, triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from zobench.zo.passes import triton_kernel
kernel = triton_kernel.triton_pass
kinds = dict.fromkeys(["starts", "targets", "terms"], "*i64")
kinds |= dict.fromkeys(["number", "steps"], "i32")
kinds |= {"table": "*fp32", "live": "*fp64", "dotted": "*fp32"}
names = kernel.arg_names
pointers = [i for i, name in enumerate(names) if kinds.get(name, "").startswith("*")]
aligned = {(i,): [["tt.divisibility", 16]] for i in pointers}
least = dict(BLOCKS=4, LAWS=1, STORED=1, VECTORS=0, ROUNDINGS=1, STATES=False, ROWS=False)
least |= dict(PICKED=False, HAS_LIVE=False, ALIGNED=True)
most = dict(BLOCKS=4, LAWS=3, STORED=7, VECTORS=7, ROUNDINGS=7, STATES=True, ROWS=True)
most |= dict(PICKED=True, HAS_LIVE=True, ALIGNED=False)
for flags in (least, least | {"STORED": 2, "ROUNDINGS": 2, "LAWS": 2}, most):
    given = {(names.index(n),): v for n, v in flags.items()}
    source = ASTSource(kernel, {n: kinds.get(n, "constexpr") for n in names}, given, aligned)
    target = GPUTarget("cuda", 90, 32)
    code = triton.compile(source, target=target, options={"enable_fp_fusion": False}).asm["ptx"]
    print(json.dumps([len(re.findall(r"\\bfma\\.", code)), ".v4.b32" in code]))
"""


def test_products_and_sums_stay_apart_in_the_code_for_a_gpu() -> None:
    """No multiply-add in what is compiled for an H100, and 16 bytes at a time where aligned."""
    pytest.importorskip("triton", reason="triton is not installed (make test-kernels installs it)")
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-W", "ignore", "-c", CODE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert found == [[0, True], [0, True], [0, False]]
