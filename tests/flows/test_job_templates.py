"""Base job templates of the work pools: Prefect's own and what Causeway's runs need; server and workers take them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import prefect
import pytest
from jsonschema import Draft202012Validator
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.testing.utilities import prefect_test_harness
from prefect.utilities.schema_tools.validation import is_valid_schema, validate
from prefect.utilities.templating import find_placeholders
from prefect.workers.process import ProcessJobConfiguration

ROOT = Path(__file__).parents[2]
SHIPPED = Path(prefect.__file__).parent / "server/api/collections_data/views/aggregate-worker-metadata.json"
TYPES = {"process": "prefect", "docker": "prefect-docker", "kubernetes": "prefect-kubernetes"}
EXAMPLES: dict[str, dict[str, Any]] = {
    "process": {"home": "/data/causeway", "env": {"OMP_NUM_THREADS": "2"}},
    "docker": {
        "home": "/data/causeway",
        "image": "causeway:test",
        "env": {"OMP_NUM_THREADS": "2"},
        "volumes": ["/data/sources:/sources:ro"],
        "mem_limit": "8g",
        "nano_cpus": 2_000_000_000,
        "device_requests": [{"driver": "nvidia", "count": 2, "capabilities": [["gpu"]]}],
    },
    "kubernetes": {
        "home": "/causeway",
        "home_claim": "north-home",
        "image": "causeway:test",
        "env": {"OMP_NUM_THREADS": "2"},
        "env_from": [{"secretRef": {"name": "north-credentials"}}],
        "node_selector": {"topology.kubernetes.io/region": "eu-north"},
        "service_account_name": "causeway",
        "image_pull_secrets": [{"name": "registry"}],
        "cpu_request": "2",
        "memory_request": "8Gi",
        "memory_limit": "16Gi",
        "nvidia_gpus": 2,
    },
}

# Run by an interpreter that has the workers of Docker and Kubernetes: renders as they do before they start a container.
RENDER = """
import asyncio, json, sys, uuid
from types import SimpleNamespace
from docker.models.containers import _create_container_args
from kubernetes_asyncio.client import ApiClient
from prefect.client.schemas.objects import FlowRun
from prefect_docker.worker import DockerWorker, DockerWorkerJobConfiguration
from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration

kind, template, values = json.load(sys.stdin)

async def configured(kind_of):
    made = await kind_of.from_template_and_values(template, values, client=object())
    made.prepare_for_flow_run(FlowRun(flow_id=uuid.uuid4(), name="ingest a 2026-01-01"))
    return made

async def docker():
    daemon = SimpleNamespace(version=lambda: {"Version": "24.0.0"})
    made = await configured(DockerWorkerJobConfiguration)
    settings = DockerWorker._build_container_settings(None, daemon, made)
    return _create_container_args({**settings, "version": "1.43"})

async def kubernetes():
    manifest = (await configured(KubernetesWorkerJobConfiguration)).job_manifest
    async with ApiClient() as api:
        # What the model of batch/v1 Job does not know does not come back.
        job = api.deserialize(SimpleNamespace(data=json.dumps(manifest)), "V1Job")
        return [manifest, api.sanitize_for_serialization(job)]

print(json.dumps(asyncio.run({"docker": docker, "kubernetes": kubernetes}[kind]())))
"""


def template_of(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((ROOT / "deployments" / "job-templates" / f"{kind}.json").read_text("utf-8"))
    return loaded


def shipped(kind: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(SHIPPED.read_text("utf-8"))[TYPES[kind]][kind]["default_base_job_configuration"]
    return loaded


def missing(wanted: Any, found: Any, where: str = "") -> list[str]:
    """Return the paths of what is in `wanted` and not in `found`; lists are compared item by item."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [where]
        return [p for k, v in wanted.items() for p in missing(v, found.get(k), f"{where}/{k}")]
    if isinstance(wanted, list):
        if not isinstance(found, list) or len(found) < len(wanted):
            return [where]
        return [p for k, v in enumerate(wanted) for p in missing(v, found[k], f"{where}/{k}")]
    return [] if wanted == found else [where]


@pytest.fixture(scope="module")
def server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with the packages of these tests and the two worker packages, which the product runs without."""
    folder = tmp_path_factory.mktemp("workers") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    paths = [Path(sysconfig.get_path("purelib", vars={"base": str(folder)})) / "parent.pth"]
    paths[0].write_text(f"{sysconfig.get_path('purelib')}\n")
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-c", ROOT / "constraints.txt"]
    done = subprocess.run([*pip, "prefect-docker", "prefect-kubernetes"], capture_output=True, text=True)
    if done.returncode and not os.environ.get("CI"):
        pytest.skip("no package index to install prefect-docker and prefect-kubernetes from")
    assert done.returncode == 0, done.stderr[-3000:]
    return python


def rendered(python: Path, kind: str, values: dict[str, Any]) -> Any:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    environment["PREFECT_API_URL"] = "http://127.0.0.1:4200/api"
    given = json.dumps([kind, template_of(kind), values])
    done = subprocess.run(
        [python, "-W", "ignore", "-c", RENDER], input=given, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", TYPES)
def test_every_variable_that_is_used_is_defined_and_every_one_defined_is_used(kind: str) -> None:
    template = template_of(kind)
    used = {placeholder.name for placeholder in find_placeholders(template["job_configuration"])}
    # The worker merges `env` into the one of the configuration by its name, without a placeholder.
    assert used | {"env"} == set(template["variables"]["properties"])


@pytest.mark.parametrize("kind", TYPES)
def test_variables_are_a_json_schema_whose_defaults_and_examples_satisfy_it(kind: str) -> None:
    variables = template_of(kind)["variables"]
    Draft202012Validator.check_schema(variables)
    is_valid_schema(variables)
    properties = variables["properties"]
    validate(
        {name: p["default"] for name, p in properties.items() if p.get("default") is not None},
        variables,
        raise_on_error=True,
        ignore_required=True,
    )
    for name, prop in properties.items():
        for example in prop.get("examples", []):
            validate({name: example}, variables, raise_on_error=True, ignore_required=True)
    validate(EXAMPLES[kind], variables, raise_on_error=True)


@pytest.mark.parametrize("kind", TYPES)
def test_what_prefect_ships_is_kept(kind: str) -> None:
    ours, theirs = template_of(kind), shipped(kind)
    assert set(theirs["variables"]["properties"]) <= set(ours["variables"]["properties"])
    assert missing(theirs["variables"].get("definitions", {}), ours["variables"].get("definitions", {})) == []
    # `env` carries CAUSEWAY_HOME, and the worker merges the variable into it; the retries became a variable.
    expected = {"/env", "/job_manifest/spec/backoffLimit"}
    assert set(missing(theirs["job_configuration"], ours["job_configuration"])) <= expected


@pytest.mark.parametrize("kind", TYPES)
async def test_the_server_takes_the_template_and_refuses_a_default_of_the_wrong_type(kind: str, server: None) -> None:
    async with get_client() as client:
        made = await client.create_work_pool(
            WorkPoolCreate(name=f"{kind}-{uuid.uuid4().hex[:8]}", type=kind, base_job_template=template_of(kind))
        )
        read = await client.read_work_pool(made.name)
        assert read.base_job_template == template_of(kind)
        wrong = template_of(kind)
        wrong["variables"]["properties"]["home"]["default"] = 7
        with pytest.raises(PrefectHTTPStatusError, match="422"):
            await client.create_work_pool(
                WorkPoolCreate(name=f"{kind}-{uuid.uuid4().hex[:8]}", type=kind, base_job_template=wrong)
            )


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
def test_a_container_cannot_be_asked_for_without_home_and_image(kind: str) -> None:
    errors = validate({}, template_of(kind)["variables"])
    assert sorted(e.message for e in errors) == ["'home' is a required property", "'image' is a required property"]


async def test_a_process_gets_the_home_and_the_variables_of_its_deployment(server: None) -> None:
    made = await ProcessJobConfiguration.from_template_and_values(template_of("process"), EXAMPLES["process"])
    assert made.env == {"CAUSEWAY_HOME": "/data/causeway", "OMP_NUM_THREADS": "2"}
    assert made.stream_output is True
    bare = await ProcessJobConfiguration.from_template_and_values(template_of("process"), {})
    assert bare.env == {}


def test_a_docker_container_has_image_home_limits_and_gpus(workers: Path) -> None:
    made = rendered(workers, "docker", EXAMPLES["docker"])
    host = made["host_config"]
    assert made["image"] == "causeway:test"
    assert made["command"] == "prefect flow-run execute"
    assert made["environment"].items() >= {"CAUSEWAY_HOME": "/data/causeway", "OMP_NUM_THREADS": "2"}.items()
    assert host["Mounts"] == [{"Type": "bind", "Source": "/data/causeway", "Target": "/data/causeway"}]
    assert host["Binds"] == ["/data/sources:/sources:ro"]
    assert (host["Memory"], host["NanoCpus"], host["ShmSize"]) == (8 << 30, 2_000_000_000, 1 << 30)
    (gpus,) = host["DeviceRequests"]
    assert (gpus["Driver"], gpus["Count"], gpus["Capabilities"]) == ("nvidia", 2, [["gpu"]])


def test_a_docker_container_without_gpus_asks_for_none(workers: Path) -> None:
    made = rendered(workers, "docker", {"home": "/data/causeway", "image": "causeway:test"})
    assert "DeviceRequests" not in made["host_config"]
    assert "Devices" not in made["host_config"]


def test_an_amd_gpu_is_passed_to_docker_as_devices(workers: Path) -> None:
    values = {"home": "/data/causeway", "image": "causeway:test", "devices": ["/dev/kfd", "/dev/dri"]}
    made = rendered(workers, "docker", values)
    assert [d["PathOnHost"] for d in made["host_config"]["Devices"]] == ["/dev/kfd", "/dev/dri"]


def test_a_kubernetes_job_has_image_home_region_secrets_and_gpus(workers: Path) -> None:
    manifest, known = rendered(workers, "kubernetes", EXAMPLES["kubernetes"])
    pod = manifest["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == "causeway:test"
    assert container["args"] == ["prefect", "flow-run", "execute"]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environment.items() >= {"CAUSEWAY_HOME": "/causeway", "OMP_NUM_THREADS": "2"}.items()
    assert container["envFrom"] == [{"secretRef": {"name": "north-credentials"}}]
    assert container["volumeMounts"] == [{"name": "home", "mountPath": "/causeway"}]
    assert pod["volumes"] == [{"name": "home", "persistentVolumeClaim": {"claimName": "north-home"}}]
    assert pod["nodeSelector"] == {"topology.kubernetes.io/region": "eu-north"}
    assert (pod["serviceAccountName"], pod["imagePullSecrets"]) == ("causeway", [{"name": "registry"}])
    assert container["resources"] == {
        "limits": {"memory": "16Gi", "nvidia.com/gpu": 2},
        "requests": {"cpu": "2", "memory": "8Gi"},
    }
    # Prefect's worker demands these two where batch/v1 does not have them; all else is a Job's own. (Quantities come
    # back as text.)
    unknown = {"/spec/template/spec/parallelism", "/spec/template/spec/completions"}
    assert {p for p in missing(manifest, known) if "resources" not in p} == unknown


def test_an_amd_gpu_is_a_resource_of_its_own_name(workers: Path) -> None:
    values = {"home": "/causeway", "image": "causeway:test", "amd_gpus": 1}
    manifest, _ = rendered(workers, "kubernetes", values)
    (container,) = manifest["spec"]["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == {"amd.com/gpu": 1}
