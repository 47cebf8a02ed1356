"""Two processes that train one network on one card, against one process: NCCL on a GPU, Gloo on the CPU.

NCCL refuses two ranks on one device of one machine; with names of machines of their own they are two, over sockets: slow, and
the same sums.
"""

import os
import socket
import subprocess
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import runner
from report import Failed

import common

# Nats: sums of two halves in float32 instead of one, grown over 20 steps at a small rate.
ALLOWED = 1e-4
# Nothing but sockets of this machine.
SOCKETS = {"NCCL_IB_DISABLE": "1", "NCCL_MNNVL_ENABLE": "0", "NCCL_SOCKET_IFNAME": "lo"}
# For a rank to end after the other has failed.
LAST_SECONDS = 15


def run(options, found):
    size = ["--model=res10", "--image-size=16", "--batch-size=8", "--train-images=24"]
    size = size if options.smoke else ["--model=res18", "--batch-size=128", "--train-images=2560"]
    words = [*size, "--engine=tensor", "--precision=fp32", "--optimizer=sgd", "--lr=1e-3", "--warmup-epochs=0", "--epochs=1"]
    results = options.place / options.stage / "two"
    outcomes = two(options, results, [*words, "--distributed-timeout=60"])
    for rank, (status, said) in enumerate(outcomes):
        if status != 0:
            raise Failed(f"rank {rank} of 2 ended with status {status}: {said.strip()[-runner.LAST_WORDS:]}")
    pair, alone = runner.below(results), runner.train(options, "one", *words)
    difference = runner.apart(pair.losses(), alone.losses())
    found.check("two processes train as one does", difference <= ALLOWED, steps=len(pair.losses()), worst_difference=difference, allowed=ALLOWED)


def two(options, results, words):
    """Status and words of both."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # All ranks on one device: it is local rank 0 of each of two machines.
    device = "cpu" if options.device == "cpu" else "cuda"
    visible = {} if options.device == "cpu" else {"CUDA_VISIBLE_DEVICES": options.device.partition(":")[2] or "0"}
    command = [common.binary(), *runner.DATA, f"--device={device}", "--knn-every=0", f"--save-dir={results}", *words]
    children = []
    for rank in range(2):
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        environment = {**os.environ, **place, **visible, **SOCKETS, "NCCL_HOSTID": f"rank{rank}"}
        children.append(subprocess.Popen(
            [str(word) for word in command], cwd=common.ROOT, env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ))  # fmt: skip
    # Both are read at once: one whose pipe is full would wait for its reader, and the other for it.
    with ThreadPoolExecutor(2) as pool:
        reading = [pool.submit(child.communicate) for child in children]
        futures.wait(reading, return_when=futures.FIRST_COMPLETED)
        if any(child.returncode for child in children):
            # The other has its own words for it, or would wait for it until its time is over.
            futures.wait(reading, timeout=LAST_SECONDS)
            for child in children:
                child.terminate()
        said = [one.result()[0] for one in reading]
    for rank, text in enumerate(said):
        print(f"rank {rank}:\n{text[-4000:]}", flush=True)
    return [(child.returncode, text) for child, text in zip(children, said)]
