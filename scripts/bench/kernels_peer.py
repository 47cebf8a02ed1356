"""Upstream's loss or optimiser in PyTorch, once for each line read: the peer of kernels.py.

    python scripts/bench/kernels_peer.py loss VIEWS DIM | lean VIEWS DIM | lars
"""

import sys
import time

import common
import torch
import upstream


def loss(objective, views, dim):
    torch.manual_seed(0)
    projected = torch.randn(views, dim, requires_grad=True)

    def work():
        projected.grad = None
        start = time.perf_counter()
        value = objective(projected)
        value.backward()
        return {"seconds": time.perf_counter() - start, "value": value.item()}

    common.peer_serve(work)


def lars():
    torch.manual_seed(0)
    parameters = list(upstream.Encoder("res50").parameters())
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    optimiser = upstream.LoopLars(parameters, lr=1e-6)
    optimiser.step()

    def work():
        start = time.perf_counter()
        for _ in range(10):
            optimiser.step()
        return {"seconds": (time.perf_counter() - start) / 10}

    common.peer_serve(work)


match sys.argv[1:]:
    case ["loss", views, dim]:
        loss(upstream.masked_loss, int(views), int(dim))
    case ["lean", views, dim]:
        loss(upstream.lean_loss, int(views), int(dim))
    case ["lars"]:
        lars()
    case _:
        sys.exit(__doc__)
