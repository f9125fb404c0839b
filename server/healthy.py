"""``python -P -m server.healthy HOST:PORT``: exit 0 where a server is ready, for a container's health check.

A server is ready once it knows all the others. With TLS, variables say with what to ask: PARAMSERVER_TLS_CA,
and where servers want to see a certificate PARAMSERVER_TLS_CERT and PARAMSERVER_TLS_KEY.
"""

from __future__ import annotations

import os
import sys

ANSWER_SECONDS = 2.0


def main(arguments: list[str]) -> int:
    """Ask a server over gRPC's health protocol, and say in a sentence what it is if it is not ready.

    Args:
        arguments: the command line without the program's name: one address.

    Returns:
        The exit code: 0 ready, 1 not ready or not there, 2 bad usage.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it writes lines of its own to stderr, not sentences
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from paramserver.errors import RequestError
    from paramserver.security import read_access
    from paramserver.security.channels import open_channel

    if len(arguments) != 1:
        print("One argument is expected, the address of a server: HOST:PORT.", file=sys.stderr)
        return 2
    try:
        access = read_access()
    except RequestError as error:
        print(error, file=sys.stderr)
        return 2
    with open_channel(arguments[0], access, (("grpc.enable_http_proxy", 0),)) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(), timeout=ANSWER_SECONDS
            )
        except grpc.RpcError as error:
            print(f"The server at {arguments[0]} does not answer: {error.code().name}.", file=sys.stderr)
            return 1
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        print(f"The server at {arguments[0]} waits for the others.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
