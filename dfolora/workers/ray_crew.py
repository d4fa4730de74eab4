"""Workers as Ray actors, on this machine or on a cluster; Ray is imported when somebody asks for workers."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from dfolora.errors import UserError
from dfolora.problems.adapters import AdapterProblem
from dfolora.workers.crew import Crew
from dfolora.workers.messages import Died, Failed, Order, Report
from dfolora.workers.worker import MakeProblem, Worker

ANSWER_SECONDS = 5  # for a machine to take a connection
CONNECT_SECONDS = 30  # for a cluster to say hello
START_SECONDS = 90  # for the first worker to be a process; what it loads then takes as long as it takes
POLL_SECONDS = 1.0
STORE_BYTES = 2**27  # of Ray's object store: what goes through it is small


def check(address: str) -> None:
    """Find out, before anything that takes long, whether there can be workers.

    Args:
        address: of a cluster; '': they will be on this machine.

    Raises:
        UserError: Ray is not installed, or no cluster answers.
    """
    if importlib.util.find_spec("ray") is None:
        raise UserError("workers: they need Ray, which is not installed; pip install 'dfolora[ray]'")
    if not address or _ray().is_initialized():
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if port.isdigit():
        try:
            socket.create_connection((host, int(port)), ANSWER_SECONDS).close()
        except OSError as error:
            raise _no_cluster(address, error.strerror or str(error)) from error
    # Ray itself tries for two minutes, prints what it thinks of it, and ends the process.
    code = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False)"
    try:
        tried = subprocess.run([sys.executable, "-c", code, address], timeout=CONNECT_SECONDS, capture_output=True)
    except subprocess.TimeoutExpired as error:
        raise _no_cluster(address, f"what is there has not answered as Ray for {CONNECT_SECONDS} seconds") from error
    if tried.returncode:
        said = tried.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        if any("AuthenticationError" in line for line in said):
            raise UserError(
                f"ray_address: the cluster at {address!r} asks for a token; set RAY_AUTH_MODE=token, and have its file "
                "~/.ray/auth_token on every machine"
            )
        raise _no_cluster(address, said[-1])


class RayCrew(Crew):
    """Actors of Ray, a GPU each where there are any, on this machine or on a cluster.

    What is connected or started here is left or stopped by ``close``; a Ray that the program had initialised itself is
    used as it is, and stays.
    """

    def __init__(self, make_problem: MakeProblem, workers: int, address: str = "", use_gpus: bool = True) -> None:
        """Connect to the cluster, or start Ray on this machine.

        Args:
            make_problem: what every worker builds.
            workers: how many; 0: as many as the cluster has GPUs, without any as it has CPUs.
            address: of a cluster, such as ``10.0.0.1:6379`` or ``auto``; '': this machine.
            use_gpus: whether to take GPUs where there are some.

        Raises:
            UserError: no cluster answers, it is too small, or ``make_problem`` cannot be sent.
        """
        self.ray = _ray()
        self.owned = not self.ray.is_initialized()
        if self.owned:
            _connect(self.ray, address, workers)
        try:
            there = self.ray.cluster_resources()
            self.on_gpus = use_gpus and there.get("GPU", 0) >= 1
            kind = "GPU" if self.on_gpus else "CPU"
            most = int(there.get(kind, 0))
            self.size = workers or most
            if not 1 <= self.size <= most:
                raise UserError(f"workers: {self.size} cannot work; there are {most} {kind}s in {address or 'Ray'}")
            self.threads = _threads(self.size if self.owned and not address else 0)
            self.make_problem = self.ray.put(_packed(self.ray, make_problem))
        except BaseException:
            self.close()
            raise
        self.actors: dict[int, Any] = {}
        self.tasks: dict[Any, int] = {}  # what is waited for -> the worker that does it
        self.starting: dict[Any, float] = {}  # the first answer of a worker -> when it was asked

    def start(self, worker: int) -> None:
        made = self.ray.remote(num_cpus=1, num_gpus=int(self.on_gpus), max_restarts=0)(Worker)
        self.actors[worker] = actor = made.remote()
        self.starting[host := actor.host.remote()] = time.monotonic()
        self.tasks |= {host: worker, actor.build.remote(self.make_problem, self.threads): worker}

    def send(self, worker: int, order: Order) -> None:
        self.tasks[self.actors[worker].score.remote(order)] = worker

    def reports(self) -> list[tuple[int, Report]]:
        for task in self.ray.wait(list(self.tasks), num_returns=1, timeout=POLL_SECONDS)[0]:
            worker = self.tasks.pop(task)
            if report := self._report(task):
                if isinstance(report, Died):  # what else it was to do will not be done
                    self.tasks = {task: each for task, each in self.tasks.items() if each != worker}
                    self.starting = {task: since for task, since in self.starting.items() if task in self.tasks}
                return [(worker, report)]
        self._check_start()
        return []

    def close(self) -> None:
        if self.owned:
            self.ray.shutdown()
            return
        for actor in self.actors.values():
            self.ray.kill(actor)

    def _report(self, task: Any) -> Report | None:
        """What a task came to; None: the worker is there."""
        from ray.exceptions import RayError, RayTaskError

        try:
            found: Any = self.ray.get(task)
        except RayTaskError as error:
            return Failed(error.cause if isinstance(error.cause, UserError) else error)
        except RayError as error:
            return Died((str(error).strip() or type(error).__name__).splitlines()[0][:100].rstrip("."))
        if isinstance(found, str):  # its host: one is there, the others may come when they come
            self.starting.clear()
            return None
        report: Report = found
        return report

    def _check_start(self) -> None:
        if len(self.starting) == self.size and time.monotonic() > min(self.starting.values()) + START_SECONDS:
            raise UserError(
                f"workers: none has started within {START_SECONDS} seconds; does something else hold the cluster's "
                f"{'GPUs' if self.on_gpus else 'CPUs'}? `ray status` tells"
            )


@dataclass(frozen=True)
class _Packed:
    """A ``MakeProblem`` on its way to a machine that has to find the user's modules first."""

    data: bytes
    path: list[str]

    def __call__(self) -> AdapterProblem:
        sys.path += [folder for folder in self.path if folder not in sys.path]
        try:
            make_problem = pickle.loads(self.data)
        except ImportError as error:
            raise UserError(f"workers: {error} on {socket.gethostname()}; every machine needs it") from error
        problem: AdapterProblem = make_problem()
        return problem


def _packed(ray: Any, make_problem: MakeProblem) -> _Packed:
    try:
        return _Packed(ray.cloudpickle.dumps(make_problem), sys.path)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"workers: the task or the objective cannot be sent to them ({reason:.200})") from error


def _ray() -> Any:
    """Ray, which reads its switches when it is imported: it reports nothing home, and does not print on our output."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".*")
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")  # of a second worker, when the first one's ends the run
    import ray

    return ray


def _connect(ray: Any, address: str, workers: int) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    local = {"num_cpus": workers, "include_dashboard": False, "object_store_memory": STORE_BYTES}
    with _own_signals():
        try:
            ray.init(address=address or "local", **quiet, **({} if address else local))
        except (Exception, SystemExit) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            if address:
                raise _no_cluster(address, reason) from error
            raise UserError(f"workers: Ray does not start on this machine ({reason:.200})") from error


def _no_cluster(address: str, reason: str) -> UserError:
    return UserError(
        f"ray_address: no cluster answers at {address!r} ({reason:.200}); start it with `ray start --head`, and give "
        "what that prints"
    )


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """Leave the answer to SIGTERM as it was, which Ray makes its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread() and before is not None:
            signal.signal(signal.SIGTERM, before)


def _threads(local_workers: int) -> int:
    """Threads of a worker: OMP_NUM_THREADS; else a share of this machine's, or one for each CPU that Ray gives it.

    Args:
        local_workers: how many share this machine; 0: they are elsewhere.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked):
        return int(asked)
    return max(1, torch.get_num_threads() // local_workers) if local_workers else 1
