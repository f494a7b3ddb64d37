"""What is taken for a process that is gone, and ends with "run the same command again", and what for a fault."""

from __future__ import annotations

import pytest
import torch

from lmtrain.core.errors import Lost
from lmtrain.engine.distributed.processes import noticing_lost_ones

dist = torch.distributed
pytestmark = pytest.mark.skipif(not dist.is_available(), reason="torch was built without it")

GONE = [
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:1"),
    RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/unbound_buffer.cc:84] Timed out waiting 1800000ms"),
    dist.DistStoreError("wait timeout after 300000ms, keys: /lmtrain/0/group"),
    dist.DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed. Did the remote server crash?"),
    dist.DistBackendError("NCCL error in: NCCLUtils.hpp:268, remote process exited or there was a network error, NCCL "
                          "version 2.21.5\nncclRemoteError: A call failed possibly due to a network error"),
    dist.DistBackendError("[1] is setting up NCCL communicator: store->get('0') got error: wait timeout after 600ms"),
]  # fmt: skip
FAULTS = [
    RuntimeError("DataLoader timed out after 60 seconds"),
    RuntimeError("CUDA error: the launch timed out and was terminated"),
    RuntimeError("Broken pipe in a file of ours"),
    dist.DistBackendError("NCCL error in: NCCLUtils.hpp:275, invalid usage, NCCL version 2.20.5\nncclInvalidUsage: "
                          "This usually reflects invalid usage of NCCL library.\nLast error:\nDuplicate GPU detected"),
    dist.DistBackendError("NCCL error in: NCCLUtils.hpp:275, unhandled cuda error\nncclUnhandledCudaError: Call to "
                          "CUDA function failed.\nLast error:\nCuda failure 'the launch timed out and was terminated'"),
]  # fmt: skip


@pytest.mark.parametrize("error", GONE, ids=str)
def test_another_one_is_gone(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(Lost, match=f"^{Lost.SAID}: "), noticing_lost_ones():
        raise error


@pytest.mark.parametrize("error", FAULTS, ids=str)
def test_a_fault_would_come_again(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that is queued again for exit code 75 would repeat it for ever."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RuntimeError) as raised, noticing_lost_ones():
        raise error
    assert raised.value is error


def test_alone_nobody_can_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with pytest.raises(RuntimeError, match="Connection closed"), noticing_lost_ones():
        raise GONE[0]
