"""A real GPU, where the machine has one: a notebook computes on it, a mini cluster too, nobody else sees it, and who wants it next is told and waits.

The programs use the driver alone (libcuda through ctypes, a kernel in PTX that the driver compiles), so they need no CUDA toolkit.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from k8s.local.kubelet.devices import find_gpus
from k8s.local.runtimes import ENGINES
from portal.ops.client import Api, Browser
from portal.runtime import write_private
from tests.stack import Stack, running, wait_until

GPUS = find_gpus()
pytestmark = [pytest.mark.integration, pytest.mark.skipif(len(GPUS) != 1, reason="needs a machine with one NVIDIA GPU")]

# Without the simulated nodes, which have accelerators in name only.
NODES = "nodes:\n  - {name: local, machine: true}\n"
FLAVOR = """\
slug: one-gpu
title: {en: One GPU, zh-hans: 一块 GPU}
cpu: 1
memory: 4Gi
shm: 1Gi
accelerator: nvidia-gpu
accelerator_count: 1
"""
SEEN = """
import ctypes
count = ctypes.c_int()
try:
    cuda = ctypes.CDLL("libcuda.so.1")
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
except OSError as error:
    code = error
print("result", code, "devices", count.value)
"""
# y = 2x + y over `SIZE` floats in `ROUNDS` launches, then every element is compared.
SAXPY = (
    SEEN
    + r'''
PTX = b"""
.version 6.0
.target sm_50
.address_size 64
.visible .entry saxpy(.param .u64 x, .param .u64 y, .param .u32 n) {
  .reg .pred %p<2>; .reg .b32 %r<6>; .reg .f32 %f<4>; .reg .b64 %d<8>;
  ld.param.u64 %d1, [x]; ld.param.u64 %d2, [y]; ld.param.u32 %r1, [n];
  mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x; mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p1, %r5, %r1; @%p1 bra done;
  cvta.to.global.u64 %d3, %d1; cvta.to.global.u64 %d4, %d2; mul.wide.u32 %d5, %r5, 4; add.s64 %d6, %d3, %d5; add.s64 %d7, %d4, %d5;
  ld.global.f32 %f1, [%d6]; ld.global.f32 %f2, [%d7]; fma.rn.f32 %f3, %f1, 0f40000000, %f2; st.global.f32 [%d7], %f3;
done:
  ret;
}
"""
from array import array
SIZE, ROUNDS = 1 << 20, 8
def check(code):
    assert code == 0, f"CUDA error {code}"
device, name, context, module, function = ctypes.c_int(), ctypes.create_string_buffer(100), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_void_p()
check(cuda.cuDeviceGet(ctypes.byref(device), 0))
check(cuda.cuDeviceGetName(name, 100, device))
check(cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
check(cuda.cuCtxSetCurrent(context))
check(cuda.cuModuleLoadData(ctypes.byref(module), PTX))
check(cuda.cuModuleGetFunction(ctypes.byref(function), module, b"saxpy"))
x, y = array("f", range(SIZE)), array("f", [1.0]) * SIZE
dx, dy = ctypes.c_uint64(), ctypes.c_uint64()
for pointer, values in ((dx, x), (dy, y)):
    check(cuda.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(SIZE * 4)))
    check(cuda.cuMemcpyHtoD_v2(pointer, ctypes.c_void_p(values.buffer_info()[0]), ctypes.c_size_t(SIZE * 4)))
size = ctypes.c_uint32(SIZE)
arguments = (ctypes.c_void_p * 3)(*(ctypes.addressof(one) for one in (dx, dy, size)))
def launch():
    check(cuda.cuLaunchKernel(function, SIZE // 256, 1, 1, 256, 1, 1, 0, None, arguments, None))
for _ in range(ROUNDS):
    launch()
check(cuda.cuCtxSynchronize())
check(cuda.cuMemcpyDtoH_v2(ctypes.c_void_p(y.buffer_info()[0]), dy, ctypes.c_size_t(SIZE * 4)))
right = sum(value == 1.0 + 2.0 * ROUNDS * index for index, value in enumerate(y))
print("right", right, "of", SIZE, "on", name.value.decode())
'''
)
BUSY = (
    SAXPY
    + """
import time
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    for _ in range(2000):
        launch()
    check(cuda.cuCtxSynchronize())
"""
)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("gpu")
    nodes, catalogue = folder / "nodes.yaml", folder / "catalogue"
    write_private(nodes, NODES)
    (catalogue / "flavors").mkdir(parents=True)
    write_private(catalogue / "flavors" / "one-gpu.yaml", FLAVOR)
    with running(folder / "var", CLUSTER_NODES=str(nodes), SWEEP_SECONDS="2") as stack:
        stack.manage("load_catalogue", str(catalogue))
        yield stack


@pytest.fixture(scope="module")
def api(stack: Stack) -> Iterator[Api]:
    with Api(stack.url, stack.token()) as api:
        yield api


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Iterator[Browser]:
    with Browser(stack.url, "alice", stack.credentials()["alice"]) as browser:
        yield browser


def ask(api: Api, name: str, template: str, flavor: str, **params: object) -> str:
    body = {"name": name, "template": template, "flavor": flavor, "team": "vision", "params": params}
    return str(api.call("POST", "/environments", json=body)["id"])


def remove(api: Api, identifier: str) -> None:
    api.call("DELETE", f"/environments/{identifier}", params={"purge": "true"})
    api.wait_state(identifier, "deleted")


def test_a_notebook_computes_on_the_gpu_and_the_next_one_waits_for_it(stack: Stack, api: Api, browser: Browser) -> None:
    first = ask(api, "first", "jupyter-pytorch", "one-gpu")
    lab = browser.open_notebook(api.wait_state(first, "running", timeout=300)["url"])
    printed = lab.run(SAXPY)
    product = GPUS[0].product.replace("-", " ")
    assert "result 0 devices 1" in printed
    assert f"right 1048576 of 1048576 on {product}" in printed.replace("-", " ")

    second = ask(api, "second", "jupyter-pytorch", "one-gpu")
    waiting = wait_until(lambda: (found := api.environment(second)) and found["queue"] and found, "the queue to say why it waits")
    assert waiting["state"] == "queued"
    assert "0 free" in str(waiting["queue"])

    remove(api, first)
    lab = browser.open_notebook(api.wait_state(second, "running", timeout=300)["url"])
    assert "right 1048576 of 1048576" in lab.run(SAXPY)
    remove(api, second)


def test_a_notebook_without_a_gpu_sees_none(api: Api, browser: Browser) -> None:
    plain = ask(api, "plain", "notebook", "cpu-small")
    lab = browser.open_notebook(api.wait_state(plain, "running", timeout=300)["url"])
    assert "devices 0" in lab.run(SEEN)
    remove(api, plain)


def test_a_busy_gpu_is_measured_and_counts_as_use(stack: Stack, api: Api, browser: Browser) -> None:
    busy = ask(api, "busy", "jupyter-pytorch", "one-gpu")
    lab = browser.open_notebook(api.wait_state(busy, "running", timeout=300)["url"])
    assert "right 1048576" in lab.run("SECONDS = 30\n" + BUSY)

    def percent() -> float:
        code = f"from portal.domain.models import Environment; print((Environment.objects.get(pk='{busy}').activity.get('signs') or {{}}))"
        return float(ast.literal_eval(stack.manage("shell", "--no-imports", "-c", code)).get("accelerator_percent") or 0)

    assert wait_until(lambda: percent() > 5, "the GPU's use to be seen")
    remove(api, busy)


def test_a_command_of_a_mini_cluster_computes_on_the_gpu(api: Api) -> None:
    cluster = ask(
        api, "saxpy", "generic", "one-gpu", image="python:3.11", command=f"cat > /tmp/saxpy.py <<'END'\n{SAXPY}\nEND\npython3 /tmp/saxpy.py; sleep 600"
    )
    api.wait_state(cluster, "running", timeout=300)
    assert any("right 1048576 of 1048576" in line for line in api.log_lines(cluster, follow="true") if "right" in line)
    remove(api, cluster)


@pytest.mark.skipif(not (ENGINES / "bin" / "torchrun").exists(), reason="no PyTorch here: run `make engines`")
def test_torchrun_uses_nccl_on_the_gpu(api: Api) -> None:
    """As far as the PyTorch of the engines' environment has CUDA."""
    training = ask(api, "training", "pytorch", "one-gpu", workers=1)
    assert api.wait_state(training, "stopped", timeout=300)["reason"] == "Completed"
    lines = list(api.log_lines(training))
    assert any("rank 0 of 1 on cuda:0 by nccl: sum 1, expected 1" in line for line in lines), lines
    remove(api, training)
