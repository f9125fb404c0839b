"""What a server is told when it starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from paramserver.arguments import ArgumentParser, address, port, positive, seconds, whole
from paramserver.errors import RequestError
from paramserver.job import Job
from paramserver.job_toml import job_from_toml
from paramserver.logs import FORMATS, LEVELS
from paramserver.security import INTERNAL_TOKEN
from paramserver.security.doors import Doors, add_door_options, check_listen, read_doors
from paramserver.security.secrets import METRICS_TOKEN
from paramserver.toml_file import read_text
from server.limits import Limits, add_limit_options

DOOR_FILES = ("token_file", "internal_token_file", "tls_cert", "tls_key", "tls_ca", "metrics_token_file")

_WILDCARDS = ("0.0.0.0", "::", "[::]", "")


@dataclass(frozen=True, slots=True)
class Options:
    """A server's options; see ``--help``. ``job`` is the text of a job file, empty where none is named."""

    listen: str
    advertise: str
    server: int
    servers: int
    shards: int
    coordinator: str
    job: str
    out: Path | None
    exit_with_parent: bool
    connect_timeout_seconds: float
    score_grace_seconds: float
    expect_evaluator: bool
    recover: bool
    resume: bool
    restarts: bool
    checkpoint_keep: int
    no_recovery: bool
    journal_bytes_max: int
    trace: Path | None
    metrics_port: int | None
    metrics_listen: str
    log_level: str
    log_format: str
    chaos: str
    chaos_links: str
    chaos_seed: int
    insecure: bool
    doors: Doors
    limits: Limits

    def advertised(self, port: int) -> str:
        """Return the address that others use, given the port that was bound."""
        host, _, wanted = (self.advertise or self.listen).rpartition(":")
        return f"{host}:{port}" if not self.advertise or wanted == "0" else self.advertise

    @property
    def recovers(self) -> bool:
        """Say whether a server that is lost can come back with what a checkpoint has."""
        return self.out is not None and not self.no_recovery

    @property
    def own_shards(self) -> range:
        """The numbers of this server's shards."""
        return range(self.server * self.shards, (self.server + 1) * self.shards)

    @property
    def comes_back(self) -> bool:
        """Say whether the job waits for this server when it is stopped, since it is started again."""
        return self.restarts and self.recovers


def read_options(arguments: list[str]) -> Options:
    """Read the command line.

    Raises:
        RequestError: an option is unknown or malformed, or they contradict each other.
        SystemExit: 0 after ``--help``.
    """
    given = _parser().read(arguments)
    given.job = "" if given.job is None else read_text(given.job, "job file")
    files = {name: vars(given).pop(name) for name in DOOR_FILES}
    limits = Limits.pop_from(vars(given))
    options = Options(**vars(given), doors=read_doors(**files), limits=limits)
    options = _with_job(options)
    if options.restarts and options.out is None:
        raise RequestError("--restarts goes on with what a run folder has. Name it with --out.")
    if options.recover and not options.recovers:
        raise RequestError(
            "--recover goes on with the checkpoints in a run folder. Name it with --out, and leave "
            "--no-recovery out."
        )
    host, _, _ = options.listen.rpartition(":")
    if not 0 <= options.server < options.servers:
        raise RequestError(
            f"--server is an index from 0 to {options.servers - 1} with --servers {options.servers}, and "
            f"{options.server} was given."
        )
    if options.server and not options.coordinator:
        raise RequestError(f"Server {options.server} needs --coordinator HOST:PORT, the address of server 0.")
    if not options.advertise and host in _WILDCARDS:
        raise RequestError(
            f"--listen {options.listen} means every address of this machine. Say with --advertise HOST:PORT "
            "which one others are to use."
        )
    _check_doors(options, host)
    return options


def _with_job(options: Options) -> Options:
    """Take what was not said from the job file, or else the usual."""
    job = job_from_toml(options.job, "of this server") if options.job else Job(shards=1)
    options = replace(
        options,
        shards=options.shards or job.shards,
        checkpoint_keep=options.checkpoint_keep or job.checkpoint_keep,
        no_recovery=options.no_recovery or job.durability == "none",
    )
    return replace(options, recover=options.recover or options.comes_back)


def _check_doors(options: Options, host: str) -> None:
    """See that nobody gets in whom the user has not let in."""
    doors = options.doors
    places = [("--listen", host)]
    places += [("--metrics-listen", options.metrics_listen)] if options.metrics_port is not None else []
    for option, place in places:
        check_listen(option, place, has_tls=doors.has_tls, insecure=options.insecure)
    if options.servers > 1 and doors.token and not doors.internal_token:
        raise RequestError(
            "Several servers that ask for a token need a secret of their own, too, which no worker has. Give "
            f"all of them the same --internal-token-file, or {INTERNAL_TOKEN}."
        )
    if options.server and doors.has_tls and doors.ca is None:
        raise RequestError(
            f"Server {options.server} calls server 0 over TLS, and has to know whose certificate that has. "
            "Say it with --tls-ca FILE."
        )


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python -P -m server",
        description="One server of a job: shards of the model, and in server 0 the coordinator.",
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--listen", metavar="HOST:PORT", type=address, default="127.0.0.1:0", help="0 takes a free port")
    add(
        "--advertise",
        metavar="HOST:PORT",
        type=address,
        default="",
        help="the address that others use; port 0 is the one that was bound (default: as --listen)",
    )
    add("--server", metavar="INDEX", type=whole, default=0, help="this server's index; 0 coordinates")
    add("--servers", metavar="N", type=positive, default=1, help="servers of the job")
    add("--shards", metavar="N", type=positive, default=0, help="shards of each server (default: the job's)")
    add("--coordinator", metavar="HOST:PORT", type=address, default="", help="server 0, for all others")
    add(
        "--job",
        metavar="FILE",
        type=Path,
        default=None,
        help="the workers' job file: server 0 keeps it in the run folder",
    )
    add("--out", metavar="DIR", type=Path, default=None, help="run folder; without it nothing is kept")
    add_door_options(add)
    add("--exit-with-parent", action="store_true", help="end when standard input, a pipe, is closed")
    add(
        "--connect-timeout",
        metavar="SECONDS",
        dest="connect_timeout_seconds",
        type=seconds,
        default=60.0,
        help="how long to try to reach the coordinator (default: 60)",
    )
    add(
        "--score-grace-seconds",
        metavar="SECONDS",
        type=seconds,
        default=60.0,
        help="how long to wait, once the job is over, for an observer's final score (default: 60)",
    )
    add(
        "--expect-evaluator",
        action="store_true",
        help="wait so long for that score even if no observer has joined",
    )
    add(
        "--recover",
        action="store_true",
        help="this server was here before: go on with the job that --out has",
    )
    add(
        "--resume",
        action="store_true",
        help="with --recover: all replicas start anew, too, and that is no restart of theirs",
    )
    add(
        "--restarts",
        action="store_true",
        help="something starts this server again whenever it ends with an error: go on with what --out has, "
        "if anything, and when stopped with SIGTERM let the job wait (default: that ends and saves the job)",
    )
    add(
        "--no-recovery",
        action="store_true",
        help="make no checkpoints while the job runs: the loss of a server ends it (default: the job's word)",
    )
    add(
        "--checkpoint-keep",
        metavar="N",
        type=positive,
        default=0,
        help="how many of the checkpoints that are made while the job runs are kept (default: the job's)",
    )
    add(
        "--journal-bytes-max",
        metavar="BYTES",
        type=whole,
        default=256 << 20,
        help="how much of the journal without tensors is kept, for all shards of this server together; "
        "0: none is written (default: 2^28)",
    )
    add_limit_options(add)
    add("--trace", metavar="FILE", type=Path, default=None, help="record what the shards do, in this file")
    add(
        "--metrics-port",
        metavar="PORT",
        type=port,
        default=None,
        help="serve metrics for Prometheus here; 0 takes a free port (default: none are served)",
    )
    add("--metrics-listen", metavar="HOST", default="127.0.0.1", help="the host that serves metrics")
    add(
        "--metrics-token-file",
        metavar="FILE",
        type=Path,
        default=None,
        help=f"ask who reads metrics for this secret (default: {METRICS_TOKEN}; else nobody is asked)",
    )
    add(
        "--chaos",
        metavar="FAULTS",
        default="",
        help="let calls go wrong on purpose, such as 'lose=1%% delay=1%%+200ms' (default: none)",
    )
    add(
        "--chaos-links",
        metavar="FAULTS",
        default="",
        help="the same for the messages that this server sends to other servers (default: none)",
    )
    add("--chaos-seed", metavar="N", type=whole, default=0, help="seed of all chance in them (default: 0)")
    add("--log-level", choices=LEVELS, default="info", help="debug names each refused call (default: info)")
    add("--log-format", choices=FORMATS, default="text", help="json writes an object a line (default: text)")
    return parser
