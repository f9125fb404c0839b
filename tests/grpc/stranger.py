"""A client written from proto/paramserver.proto alone: generated stubs and NumPy, nothing of this project.

It fits `target = inputs @ w + b` by least squares as the only replica, and prints each loss.
Usage: python stranger.py HOST:PORT CONSISTENCY STEPS
"""

import sys
import uuid

import grpc
import numpy as np

from paramserver.wire import paramserver_pb2 as pb
from paramserver.wire import paramserver_pb2_grpc as pb_grpc

SHAPES = {"b": (1,), "w": (8, 1)}
TIMEOUT = 30


def tell(part, array):
    """Announce a slice."""
    rows = {"row_begin": part.row_begin, "row_end": part.row_end}
    return pb.SliceHeader(key=part.key, dtype=pb.DTYPE_FLOAT32, shape=array.shape, **rows)


def stream(message, header, arrays):
    """One message with the header and all the bytes: these tensors are small."""
    chunks = [pb.Chunk(slice=i, data=a.astype("<f4").tobytes()) for i, a in enumerate(arrays)]
    yield message(header=header, chunks=chunks)


def pull(stub, request, parts, values):
    """Read one shard into `values`; return the header."""
    header, received = None, {}
    for reply in stub.Pull(request, timeout=TIMEOUT):
        if reply.HasField("header"):
            header = reply.header
        for chunk in reply.chunks:
            received[chunk.slice] = received.get(chunk.slice, b"") + chunk.data
    for i, part in enumerate(parts):
        array = np.frombuffer(received[i], "<f4").reshape(header.slices[i].shape)
        values[part.key][part.row_begin : part.row_end] = array
    return header


def main(address, consistency, steps):
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(64, 8)).astype(np.float32)
    targets = inputs @ rng.normal(size=(8, 1)).astype(np.float32) + 0.5
    coordinator = pb_grpc.ParameterServerStub(grpc.insecure_channel(address))

    tensors = [pb.TensorSpec(key=k, shape=s, dtype=pb.DTYPE_FLOAT32) for k, s in SHAPES.items()]
    job = pb.JobSpec(
        tensors=tensors, model="line", consistency=consistency, optimizer="sgd", learning_rate=0.1,
        schedule="constant", versions_total=steps, replicas=1, replicas_max=1, on_death="drop",
        lease_seconds=60, step_timeout_seconds=60, start_timeout_seconds=60,
    )  # fmt: skip
    request = pb.JoinRequest(protocol_version=1, name="stranger", attempt=uuid.uuid4().hex, job=job)
    joined = coordinator.Join(request, timeout=TIMEOUT, wait_for_ready=True)
    me = {"replica": joined.replica, "generation": joined.generation}
    stubs = [pb_grpc.ParameterServerStub(grpc.insecure_channel(a)) for a in joined.addresses]
    parts = [[p for p in joined.placement if p.shard == i] for i in range(len(stubs))]

    def mine(tensors, shard):
        arrays = [tensors[p.key][p.row_begin : p.row_end] for p in parts[shard]]
        return [tell(p, a) for p, a in zip(parts[shard], arrays, strict=True)], arrays

    values = {key: np.zeros(shape, np.float32) for key, shape in SHAPES.items()}
    attempt = uuid.uuid4().hex
    for shard, stub in enumerate(stubs):
        headers, arrays = mine(values, shard)
        header = pb.InitialiseHeader(shard=shard, initialiser=attempt, slices=headers)
        stub.Initialise(stream(pb.InitialiseRequest, header, arrays), timeout=TIMEOUT)

    for clock in range(joined.clock, steps + 1):
        versions = [
            pull(stub, pb.PullRequest(shard=i, clock=clock, **me), parts[i], values).version
            for i, stub in enumerate(stubs)
        ]
        errors = inputs @ values["w"] + values["b"] - targets
        print(float((errors**2).mean()))
        if clock == steps:
            break
        gradient = {"w": inputs.T @ errors * 2 / 64, "b": errors.sum(0) * 2 / 64}
        for shard, stub in enumerate(stubs):
            headers, arrays = mine(gradient, shard)
            header = pb.PushHeader(
                shard=shard, sequence=clock, version=versions[shard], samples=64, slices=headers, **me
            )
            verdict = stub.Push(stream(pb.PushRequest, header, arrays), timeout=TIMEOUT)
            assert verdict.outcome in (pb.OUTCOME_APPLIED, pb.OUTCOME_BUFFERED), verdict
    coordinator.Leave(pb.LeaveRequest(replica=joined.replica), timeout=TIMEOUT)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
