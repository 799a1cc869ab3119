"""Workers, clients and schedulers that die in the middle of a search: no trial is lost, none ends twice."""

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import data_files
import numpy as np
import psutil
import pytest
from distributed import Client

SEARCH = [sys.executable, str(Path(__file__).with_name("search.py"))]
SLOWLY = 60  # seconds that anything may take on a busy machine

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """A folder with a few hundred noisy faces, in which one can learn to tell the classes by their brightness."""
    folder, rng = tmp_path_factory.mktemp("faces"), np.random.default_rng(0)
    labels = rng.integers(7, size=500)
    noise = rng.integers(0, 120, size=(500, 48, 48)) + 15 * labels[:, None, None]
    lines = [data_files.fer_line(*row, "Training") for row in zip(labels, noise.astype(np.uint8), strict=True)]
    data_files.write_fer_csv(folder, [*lines, *(data_files.fer_line(*row) for row in data_files.fer_rows())])
    return folder


@pytest.fixture(scope="module")
def environment(faces):
    """What every process of these tests gets."""
    return {**os.environ, "NNLIB_DATA": str(faces), "NNLIB_KERNELS": "numpy", "TQDM_DISABLE": "1"}


@pytest.fixture(scope="module")
def undisturbed(environment, tmp_path_factory):
    """The trials of the search when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*SEARCH, "result.json"], cwd=folder, env=environment, check=True, timeout=3 * SLOWLY)
    return json.loads((folder / "result.json").read_text())


def start(folder, environment, *arguments):
    return subprocess.Popen([*SEARCH, "result.json", *arguments], cwd=folder, env=environment)


def wait_for(condition, client):
    """Wait until something holds; the search must not end before."""
    until = time.monotonic() + SLOWLY
    while not condition():
        assert client.poll() is None, "the search ended before all deaths had happened"
        assert time.monotonic() < until
        time.sleep(0.02)


def workers_of(client):
    """Return the client's two workers once they are there."""
    wait_for(lambda: len(psutil.Process(client.pid).children()) == 2, client)
    return psutil.Process(client.pid).children()


def ends_of(journal):
    """Return how often each trial ended, by Optuna's number, so far."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    logs = [json.loads(line) for line in lines]
    finished = {1, 2, 3}  # complete, pruned, failed
    return Counter(log["trial_id"] for log in logs if log["op_code"] == 6 and log["state"] in finished)


def test_ten_deaths_of_workers_and_three_of_the_client_change_nothing(tmp_path, environment, undisturbed):
    moments = random.Random(1)
    deaths = ["worker", "worker", "worker", "client"] * 3 + ["worker"]
    client = start(tmp_path, environment)
    for ended, death in enumerate(deaths):
        wait_for(lambda ended=ended: len(ends_of(tmp_path / "kept.journal")) >= ended, client)
        time.sleep(moments.uniform(0, 0.5))
        found = workers_of(client)
        if death == "worker":
            dying = moments.choice(found)
            dying.kill()
            dying.wait(timeout=10)
            continue
        client.kill()
        client.wait()
        _, alive = psutil.wait_procs(found, timeout=10)
        assert not alive, "workers outlived their client"
        client = start(tmp_path, environment)
    assert client.wait(timeout=3 * SLOWLY) == 0
    assert ends_of(tmp_path / "kept.journal") == dict.fromkeys(range(20), 1)
    assert json.loads((tmp_path / "result.json").read_text()) == undisturbed


def test_ctrl_c_ends_the_workers_and_the_search_continues(tmp_path, environment, undisturbed):
    client = start(tmp_path, environment)
    found = workers_of(client)
    time.sleep(1)
    os.kill(client.pid, signal.SIGINT)
    assert client.wait(timeout=SLOWLY) != 0
    assert not psutil.wait_procs(found, timeout=10)[1]
    assert start(tmp_path, environment).wait(timeout=3 * SLOWLY) == 0
    assert json.loads((tmp_path / "result.json").read_text()) == undisturbed


class Cluster:
    """A scheduler and workers, each started by its command."""

    def __init__(self, folder, environment):
        self.folder, self.environment = folder, environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.processes = []

    def start(self, *arguments, **changes):
        """Start a part and return its process once it says that it is ready."""
        log = self.folder / f"{len(self.processes)}.log"
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "distributed.cli." + arguments[0], *arguments[1:], "--no-dashboard"],
                cwd=self.folder, env={**self.environment, **changes}, stdout=file, stderr=file,
            )  # fmt: skip
        self.processes.append(process)
        until = time.monotonic() + SLOWLY
        while not re.search(r"Scheduler at:|Registered to:", log.read_text()):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        return process

    def scheduler(self):
        return self.start("dask_scheduler", "--host", "127.0.0.1", "--port", str(self.port))

    def worker(self, **changes):
        arguments = "--host", "127.0.0.1", "--nworkers", "1", "--nthreads", "1", "--no-nanny"
        return self.start("dask_worker", self.address, *arguments, **changes)

    def stop(self):
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path, environment):
    (tmp_path / "dask").mkdir()
    cluster = Cluster(tmp_path / "dask", environment)
    yield cluster
    cluster.stop()


def test_deaths_on_a_dask_cluster_change_nothing(tmp_path, environment, undisturbed, cluster):
    cluster.scheduler()
    moments = random.Random(2)
    workers = [cluster.worker(), cluster.worker()]
    client = start(tmp_path, environment, cluster.address)
    for ended, death in enumerate(("worker", "client", "worker", "worker")):
        wait_for(lambda ended=ended: len(ends_of(tmp_path / "kept.journal")) >= 3 * ended, client)
        time.sleep(moments.uniform(0, 0.5))
        if death == "worker":
            workers.pop(0).kill()
            workers.append(cluster.worker())
        else:
            client.kill()
            client.wait()
            client = start(tmp_path, environment, cluster.address)
    assert client.wait(timeout=3 * SLOWLY) == 0
    assert ends_of(tmp_path / "kept.journal") == dict.fromkeys(range(20), 1)
    assert json.loads((tmp_path / "result.json").read_text()) == undisturbed


COMMAND = "import search, sys; from nnlib import cli, studies; " \
    "studies.STUDIES['search'] = {'quick': search.STUDY}; sys.exit(cli.main(sys.argv[1:]))"  # fmt: skip


def command(folder, environment, cluster, *arguments):
    """Start `nnlib tune search --dask ADDRESS`."""
    return subprocess.Popen(
        [sys.executable, "-c", COMMAND, "tune", "search", "--dask", cluster.address, *arguments],
        cwd=folder, env={**environment, "PYTHONPATH": str(Path(__file__).parent)}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def last_words(process):
    """Return the one line in which a failed command says what went wrong."""
    _, errors = process.communicate(timeout=SLOWLY)
    assert process.returncode == 1
    assert "Traceback" not in errors
    (line,) = errors.splitlines()
    return line


def test_a_search_leaves_no_queue_on_the_scheduler(tmp_path, environment, cluster):
    cluster.scheduler()
    cluster.worker()
    client = command(tmp_path, environment, cluster, "--trials", "2")
    assert client.wait(timeout=SLOWLY) == 0, client.stderr.read()
    until = time.monotonic() + SLOWLY
    with Client(cluster.address, set_as_default=False) as watch:
        while queues := watch.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.extensions["queues"].queues)):
            assert time.monotonic() < until, queues
            time.sleep(0.1)


def test_a_lost_scheduler_ends_the_client_in_one_line(tmp_path, environment, cluster):
    scheduler = cluster.scheduler()
    cluster.worker()
    client = command(tmp_path, environment, cluster)
    wait_for(lambda: any(ends_of(path) for path in (tmp_path / "runs" / "studies").glob("*.journal")), client)
    scheduler.kill()
    assert "the scheduler is gone; start it, and the same search continues" in last_words(client)


def test_a_worker_without_the_data_or_of_other_versions_is_named(tmp_path, environment, cluster):
    cluster.scheduler()
    (tmp_path / "empty").mkdir()
    worker = cluster.worker(NNLIB_DATA=str(tmp_path / "empty"))
    line = last_words(command(tmp_path, environment, cluster))
    assert re.search(r"trial \d on tcp://127.0.0.1:\d+: no FER2013 in .*empty", line)
    worker.kill()
    worker.wait()
    cluster.worker(NNLIB_KERNELS="numba")
    line = last_words(command(tmp_path, environment, cluster))
    assert re.search(r"trial \d on tcp://127.0.0.1:\d+: versions differ .*: numba is '.*', not None", line)


def test_a_scheduler_without_workers_is_told(tmp_path, environment, cluster):
    cluster.scheduler()
    assert "the scheduler has no worker" in last_words(command(tmp_path, environment, cluster))
