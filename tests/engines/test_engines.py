"""Every engine of the catalogue that can be had as packages, run for real on the embedded cluster, used as its users would."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from k8s.local.runtimes import ENGINES
from tests.stack import wait_until

from .conftest import PATIENCE, Engine, needs

pytestmark = pytest.mark.integration
Launch = Callable[..., Engine]
HTTP = httpx.Client(trust_env=False, timeout=60)


def engines_python(code: str, *args: str, **more: str) -> str:
    """What a program printed that runs beside the cluster in the engines' environment, as a notebook's kernel would. `more`: variables."""
    argv, env = [ENGINES / "bin" / "python", "-c", code, *args], {**os.environ, **more}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


# --- jobs: they end by themselves ---------------------------------------------------------


@pytest.mark.runs("template:pytorch")
@needs("pytorch/pytorch:any")
def test_torchrun_adds_up_the_ranks_of_three_processes(launch: Launch) -> None:
    engine = launch("pytorch", workers=3)
    found = engine.wait("stopped")
    assert found["reason"] == "Completed"
    log = engine.log("worker")
    for rank in range(3):
        assert f"rank {rank} of 3 on cpu by gloo: sum 6, expected 6" in log


@needs("pytorch/pytorch:any")
def test_a_training_that_fails_fails_the_environment_with_its_last_words(launch: Launch) -> None:
    engine = launch("pytorch", workers=1, command="sh -c 'echo the loss is not a number; exit 3'")
    found = wait_until(lambda: (now := engine.api.environment(engine.id))["state"] == "failed" and now, "failure", PATIENCE)
    assert found["reason"] == "CommandFailed"


@pytest.mark.runs("template:mpi")
@needs("mpioperator/mpi-pi:any", "sshd", "ssh")
def test_mpirun_reaches_all_workers_by_ssh_and_adds_up_their_ranks(launch: Launch) -> None:
    program = "from mpi4py import MPI; c = MPI.COMM_WORLD; import socket; print(f'rank {c.rank} of {c.size}: {c.allreduce(c.rank + 1)}', socket.gethostname())"
    engine = launch("mpi", workers=2, slots=2, command=f'python -c "{program}"')
    assert engine.wait("stopped")["reason"] == "Completed"
    said = [line for line in engine.log("launcher").splitlines() if "rank" in line and " of 4: 10" in line]
    assert len(said) == 4
    assert len({line.split()[-1] for line in said}) == 2, "both workers took part"


@pytest.mark.runs("template:tensorflow")
@needs("tensorflow/tensorflow:any")
def test_every_task_of_tensorflow_reads_the_same_cluster_and_its_own_place(launch: Launch) -> None:
    engine = launch("tensorflow", workers=2)
    assert engine.wait("stopped")["reason"] == "Completed"
    assert "chief 0: 1 chief, 1 ps, 2 worker; reached 4; read by" in engine.log("chief")


# --- clusters that scale while they run ---------------------------------------------------


def dask(address: str, code: str) -> str:
    from portal.runtime import ROOT

    program = f"from distributed import Client\nclient = Client('tcp://{address}:8786')\n{code}"
    done = subprocess.run([ROOT / ".venv/bin/python", "-c", program], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


@pytest.mark.runs("template:dask")
def test_dask_computes_grows_and_keeps_its_data_when_it_shrinks(launch: Launch) -> None:
    engine = launch("dask", workers=1)
    engine.wait("running")
    head = engine.address("scheduler")
    assert dask(head, "print(sum(client.gather(client.map(lambda n: n * n, range(20)))))") == "2470"
    engine.scale("worker", 2)
    assert dask(head, "client.wait_for_workers(2); print(len(client.scheduler_info()['workers']))") == "2"
    # Results that live on workers stay when one goes: it is retired first, which copies what only it has.
    keep = "client.wait_for_workers(2); from distributed import wait; made = client.map(lambda n: n, range(40), pure=False); wait(made); "
    dask(head, keep + "client.publish_dataset(made=made)")
    engine.scale("worker", 1)
    assert dask(head, "print(sum(client.gather(client.get_dataset('made'))), len(client.scheduler_info()['workers']))") == "780 1"


def ray_job(head: str, code: str) -> str:
    """The output of a program that the cluster's job server runs."""
    base = f"http://{head}:8265/api/jobs/"
    started = HTTP.post(base, json={"entrypoint": f"python -c {json.dumps(code)}"})
    assert started.is_success, started.text
    job = base + started.json()["submission_id"]
    found = wait_until(lambda: (now := HTTP.get(job).json())["status"] in ("SUCCEEDED", "FAILED", "STOPPED") and now, "the job to end", PATIENCE)
    logs = HTTP.get(job + "/logs").json()["logs"]
    assert found["status"] == "SUCCEEDED", logs
    return str(logs)


def ray_workers(head: str, state: str) -> list[dict[str, Any]]:
    nodes = HTTP.get(f"http://{head}:8265/api/v0/nodes").json()["data"]["result"]["result"]
    return [node for node in nodes if node["state"] == state and not node["is_head_node"]]


@pytest.mark.runs("template:ray")
@needs("rayproject/ray:any")
def test_ray_computes_grows_and_shrinks(launch: Launch) -> None:
    engine = launch("ray", workers=1, object_store_mb=100)
    engine.wait("running")
    head = engine.address("head")
    code = "import ray; ray.init(log_to_driver=False); f = ray.remote(lambda n: n * n); print('sum', sum(ray.get([f.remote(n) for n in range(20)])))"
    assert "sum 2470" in ray_job(head, code)
    engine.scale("worker", 2)
    wait_until(lambda: len(ray_workers(head, "ALIVE")) == 2, "two nodes that work", PATIENCE)
    engine.scale("worker", 1)
    (gone,) = wait_until(lambda: ray_workers(head, "DEAD"), "the end of one node", PATIENCE)
    assert "scaled down" in gone["state_message"], "the head was told before the node went"
    assert len(ray_workers(head, "ALIVE")) == 1
    assert "sum 2470" in ray_job(head, code)


WORD_COUNT = """
import sys
from pyspark.sql import SparkSession
from pyspark.sql.functions import explode, split
spark = SparkSession.builder.remote(sys.argv[1]).getOrCreate()
lines = spark.createDataFrame([("to be or not to be",), ("that is the question",)], ["line"])
words = lines.select(explode(split("line", " ")).alias("word")).groupBy("word").count()
print(sorted((row["word"], row["count"]) for row in words.collect() if row["count"] > 1))
spark.stop()
"""


@pytest.mark.runs("template:spark")
@needs("apache/spark:any", "java")
def test_spark_counts_words_grows_and_shrinks(launch: Launch) -> None:
    engine = launch("spark", workers=1, executor_mib=640, driver_mib=640)
    engine.wait("running")
    master, connect = engine.address("master"), engine.address("connect")

    def alive() -> int:
        return sum(worker["state"] == "ALIVE" for worker in HTTP.get(f"http://{master}:8080/json/").json()["workers"])

    expected = "[('be', 2), ('to', 2)]"
    assert engines_python(WORD_COUNT, f"sc://{connect}:15002") == expected
    engine.scale("worker", 2)
    wait_until(lambda: alive() == 2, "two workers", PATIENCE)
    engine.scale("worker", 1)
    wait_until(lambda: alive() == 1, "one worker", PATIENCE)
    assert engines_python(WORD_COUNT, f"sc://{connect}:15002") == expected


# Without user functions in Python, Beam, which would run them in the client's own process, is not needed.
NO_LOOPBACK = {"_python_worker_execution_mode": "process"}
FLINK_WORD_COUNT = """
import sys
from pyflink.common import Configuration
from pyflink.table import EnvironmentSettings, TableEnvironment
config = Configuration()
for key, value in {"execution.target": "remote", "rest.address": sys.argv[1], "rest.port": "8081"}.items():
    config.set_string(key, value)
env = TableEnvironment.create(EnvironmentSettings.new_instance().in_batch_mode().with_configuration(config).build())
words = "VALUES ('to'), ('be'), ('or'), ('not'), ('to'), ('be')"
rows = env.execute_sql(f"SELECT word, COUNT(*) FROM ({words}) AS words(word) GROUP BY word").collect()
print(sorted((row[0], row[1]) for row in rows if row[1] > 1))
"""


@pytest.mark.runs("template:flink")
@needs("flink:any", "java")
def test_flink_counts_words_grows_and_shrinks(launch: Launch) -> None:
    engine = launch("flink", workers=1)
    engine.wait("running")
    manager = engine.address("jobmanager")

    def managers() -> int:
        return int(HTTP.get(f"http://{manager}:8081/overview").json()["taskmanagers"])

    expected = "[('be', 2), ('to', 2)]"
    wait_until(lambda: managers() == 1, "one task manager", PATIENCE)
    assert engines_python(FLINK_WORD_COUNT, manager, **NO_LOOPBACK) == expected
    assert [job["state"] for job in HTTP.get(f"http://{manager}:8081/jobs/overview").json()["jobs"]] == ["FINISHED"]
    engine.scale("taskmanager", 2)
    wait_until(lambda: managers() == 2, "two task managers", PATIENCE)
    engine.scale("taskmanager", 1)
    wait_until(lambda: managers() == 1, "one task manager", PATIENCE)
    assert engines_python(FLINK_WORD_COUNT, manager, **NO_LOOPBACK) == expected


# --- serving ------------------------------------------------------------------------------

MODEL = """
import sys
import onnx
from onnx import TensorProto, helper
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3]) for name in "xy")
two = helper.make_tensor("two", TensorProto.FLOAT, [1], [2.0])
graph = helper.make_graph([helper.make_node("Mul", ["x", "two"], ["y"])], "double", [x], [y], [two])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10), sys.argv[1])
"""


@pytest.fixture
def model_address(tmp_path: Path) -> Iterator[str]:
    """Where a small model that doubles its input can be downloaded."""
    engines_python(MODEL, str(tmp_path / "double.onnx"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: SimpleHTTPRequestHandler(*args, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/double.onnx"
    server.shutdown()


@pytest.mark.runs("template:onnx-serving")
@needs("mcr.microsoft.com/azureml/onnxruntime:any")
def test_an_onnx_model_is_served_by_every_replica(launch: Launch, model_address: str) -> None:
    engine = launch("onnx-serving", workers=2, model=model_address, name="double")
    engine.wait("running")
    servers = wait_until(lambda: len(found := engine.addresses("server")) == 2 and found, "both replicas", PATIENCE)
    for server in servers:
        base = f"http://{server}:8000/v2/models/double"
        assert HTTP.get(base).json()["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
        answer = HTTP.post(base + "/infer", json={"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2.5, -3]}]})
        assert answer.json()["outputs"] == [{"name": "y", "shape": [1, 3], "datatype": "FP32", "data": [2.0, 5.0, -6.0]}]
        wrong = HTTP.post(base + "/infer", json={"inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "data": [1]}]})
        assert wrong.status_code == 400
        assert "reshape" in wrong.json()["error"]


SERVER = """python -c 'import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b"hello from " + os.environ["POD_NAME"].encode())
http.server.HTTPServer((os.environ["POD_IP"], 8000), H).serve_forever()'"""


@pytest.mark.runs("template:model-server")
def test_any_http_server_is_told_ready_when_it_answers(launch: Launch) -> None:
    engine = launch("model-server", image="python:3.11", command=SERVER)
    engine.wait("running")
    assert HTTP.get(f"http://{engine.address('server')}:8000/v2/health/ready").text.startswith("hello from ")


@pytest.mark.runs("template:generic")
def test_replicas_of_an_own_image_find_each_other(launch: Launch) -> None:
    look = "import os, socket; print('index', os.environ['POD_INDEX'], 'sees', *sorted(socket.gethostbyname(h) for h in os.environ['HOSTS'].split(',')))"
    engine = launch("generic", workers=2, image="python:3.11", command=f'python -c "{look}" && sleep 100000')
    engine.wait("running")
    addresses = sorted(wait_until(lambda: len(found := engine.addresses("main")) == 2 and found, "both replicas", PATIENCE))
    log = engine.log("main", "index 0", "index 1")
    assert log.count(f"sees {' '.join(addresses)}") == 2
