"""A server with a password behind TLS; and planted secrets that must be found nowhere after the product was used."""

from __future__ import annotations

import base64
import contextlib
import json
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import pytest

from tests.acceptance.conftest import CAUSEWAY, wait_for
from tests.acceptance.secured import ROOT, Secured, process, secured
from tests.data_contracts.making import column, make_contract
from training.workspace import Workspace

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1500)]
DATASET = "test/notes"
EMAIL = "ada.planted-4711@clinic.example"
MARKER = "QUARANTINED-c0ffee-4711"
IN_ENVIRONMENT = "planted/environment+secret+key+4711"
IN_BLOCK = "planted-block-session-token-4711"
RUN_TOML = """
name = "notes"
purpose = "research pre-training"
tokenizer = 300
tokenizer_sample_bytes = 40000
datasets = ["test/notes"]
window = 32
rounds = 1
steps = 1
snapshot_every = 1
[model]
hidden_size = 16
layers = 1
heads = 2
intermediate_size = 32
"""
COLUMNS = (
    column("key", primaryKey=True, primaryKeyPosition=1),
    column("day", partitioned=True),
    column("content", required=True, logicalTypeOptions={"pattern": "^Note"}),
    column("count", "integer"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured(tmp_path_factory.mktemp("secured")) as made:
        yield made


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A contract and two days of notes: e-mail addresses, and rows that are refused for three reasons."""
    folder = tmp_path_factory.mktemp("data")
    contract = {"reader": {"format": "jsonl", "partition": {"from": "path", "pattern": "([0-9-]+)[.]jsonl"}}}
    make_contract(folder, COLUMNS, id=DATASET, terms={"pii": {"email": "redact"}}, **contract)
    for day in ("2026-01-01", "2026-01-02"):
        write_day(folder, day)
    return folder


def write_day(folder: Path, day: str) -> None:
    rows = [{"key": f"{day}-{n}", "content": f"Note {n}: ask {EMAIL} about it.", "count": n} for n in range(40)]
    rows.append({"key": "pattern", "content": f"{MARKER} has no such beginning", "count": 1})
    rows.append({"key": "type", "content": "Note of a wrong type", "count": f"{MARKER}-as-a-number"})
    lines = [json.dumps(row) for row in rows] + [f'{{"key": "{MARKER}-broken-json", "content": ']
    (folder / "source").mkdir(exist_ok=True)
    (folder / "source" / f"{day}.jsonl").write_text("\n".join(lines) + "\n")


def causeway(environment: dict[str, str], *words: str | Path, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [*CAUSEWAY, *map(str, words)]
    return subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True, timeout=300, cwd=ROOT)


def ingest(home: Path, data: Path, environment: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    return causeway(environment, "ingest", data / "contract.yaml", data / "source", "--home", home, *more)


def filtered(place: Secured, what: str, **body: Any) -> Any:
    with place.client() as client:
        answer = client.post(f"/{what}/filter", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_server_asks_for_the_password(place: Secured) -> None:
    context = ssl.create_default_context(cafile=place.ca)
    for auth in (None, ("causeway", "wrong")):
        answer = httpx.post(f"{place.url}/flows/filter", json={}, auth=auth, verify=context)
        assert answer.status_code == 401
    assert filtered(place, "flows") is not None


def test_a_large_artifact_passes_nginx(place: Secured) -> None:
    with place.client() as client:
        answer = client.post("/artifacts/", json={"key": "large", "type": "markdown", "data": "x" * 4_000_000})
        assert answer.status_code == 201
        assert len(client.get(f"/artifacts/{answer.json()['id']}").json()["data"]) == 4_000_000


def test_a_run_without_the_ca_ends_with_a_certificate_error(place: Secured, data: Path, tmp_path: Path) -> None:
    environment = place.environment()
    del environment["PREFECT_API_SSL_CERT_FILE"]
    done = ingest(tmp_path, data, environment)
    assert done.returncode != 0
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr


def test_a_run_without_the_password_ends_with_401(place: Secured, data: Path, tmp_path: Path) -> None:
    environment = place.environment()
    del environment["PREFECT_API_AUTH_STRING"]
    done = ingest(tmp_path, data, environment)
    assert done.returncode != 0
    assert "401" in done.stderr


@dataclass(frozen=True)
class Used:
    """The product was used: what the commands said, and the secrets that were planted, by what they are."""

    place: Secured
    said: str
    secrets: dict[str, list[bytes]]


@pytest.fixture(scope="module")
def used(place: Secured, data: Path) -> Used:
    """From ingest (by command and by worker) to the report, through nginx, with secrets everywhere they can be."""
    workspace = Workspace.open(place.home)
    assert workspace.owner
    for site in workspace.sites.sites:
        assert workspace.site_key(site.name)
    environment = place.environment(AWS_SECRET_ACCESS_KEY=IN_ENVIRONMENT, PREFECT_LOGGING_LEVEL="DEBUG")
    home = ("--home", place.home)
    (data / "run.toml").write_text(RUN_TOML)
    commands = [
        causeway(environment, "secrets", "set", "home", "AWS_SESSION_TOKEN", *home, stdin=IN_BLOCK),
        causeway(environment, "secrets", "list", "home", *home),
        ingest(place.home, data, environment, "--oracle"),
        deployed_ingest(place, data, environment),
        causeway(environment, "curate", *home),
        causeway(environment, "quarantine", DATASET, *home),
        causeway(environment, "status", "--json", *home),
        causeway(environment, "train", data / "run.toml", *home),
        causeway(environment, "check", *home),
    ]
    (run,) = [folder.name for folder in (place.home / "home" / "runs").iterdir()]
    for command in ("evaluate", "report"):
        commands.append(causeway(environment, command, run, *home))
    for done in commands:
        assert done.returncode == 0, f"{done.args}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    password = place.auth.partition(":")[2]
    texts = {
        "environment": IN_ENVIRONMENT,
        "block": IN_BLOCK,
        "password": password,
        "user and password": place.auth,
        "encryption key": place.encryption_key,
    }
    secrets = {name: spellings(text.encode()) for name, text in texts.items()}
    for file in (place.home / "keys").iterdir():
        if file.name != "prefect-auth":
            secrets[file.name] = spellings(bytes.fromhex(file.read_text().strip()))
    assert len(secrets) == len(texts) + len(workspace.sites.sites) + 2  # the owner's and the data set's
    return Used(place, "\n".join(done.stdout + done.stderr for done in commands), secrets)


def deployed_ingest(place: Secured, data: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the ingest of a third day by a worker of a process pool, made from the template that is shipped."""
    write_day(data, "2026-01-03")
    template = json.loads((ROOT / "deployments" / "job-templates" / "process.json").read_text())
    parameters = {"home": place.home, "contract": data / "contract.yaml", "source": data / "source"}
    with place.client() as client:

        def post(path: str, **body: Any) -> Any:
            answer = client.post(path, json=body)
            assert answer.status_code < 300, answer.text
            return answer.json()

        post("/work_pools/", name="home", type="process", base_job_template=template)
        flow = post("/flows/", name="ingest")["id"]
        deployment = post(
            "/deployments/",
            name="notes",
            flow_id=flow,
            work_pool_name="home",
            entrypoint="flows.ingest.ingest",
            pull_steps=[],
            parameters={name: str(value) for name, value in parameters.items()},
            job_variables={"home": str(place.home)},
        )["id"]
        run = post(f"/deployments/{deployment}/create_flow_run", state={"type": "SCHEDULED"})["id"]
        worker: list[str | Path] = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "home"]
        with process(worker, place.folder / "worker.log", environment | {"PREFECT_WORKER_QUERY_SECONDS": "2"}):
            ended = ("COMPLETED", "FAILED", "CRASHED")
            wait_for(lambda: client.get(f"/flow_runs/{run}").json()["state_type"] in ended, 300, "the run did not end")
        state = client.get(f"/flow_runs/{run}").json()["state"]
    assert state["type"] == "COMPLETED", (place.folder / "worker.log").read_text()[-3000:]
    return subprocess.CompletedProcess("worker", 0, "", "")


def spellings(secret: bytes) -> list[bytes]:
    """Return the ways in which a secret could be written down."""
    plain = base64.b64encode(secret).rstrip(b"=")
    quoted = json.dumps(secret.decode(errors="replace"))[1:-1].encode()
    return [secret, secret.hex().encode(), secret.hex().upper().encode(), plain, plain.translate(URL_SAFE), quoted]


URL_SAFE = bytes.maketrans(b"+/", b"-_")


def decoded(value: Any) -> Iterator[str]:
    """Yield the texts inside a value; text that is JSON is opened, as often as it takes."""
    if isinstance(value, dict):
        for key, entry in value.items():
            yield from decoded(key)
            yield from decoded(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from decoded(entry)
    elif isinstance(value, bytes):
        yield from decoded(value.decode(errors="replace"))
    elif isinstance(value, str):
        yield value
        if value[:1] in ("{", "[", '"'):
            with contextlib.suppress(ValueError):
                yield from decoded(json.loads(value))
    elif value is not None:
        yield str(value)


def everything(used: Used, leave_out: Callable[[Path], bool] = lambda path: False) -> dict[str, bytes]:
    """Return all that was written, by where: files as bytes, tables and databases also decoded; without the keys."""
    found = {"commands": used.said.encode()}
    folder = used.place.folder
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        relative = path.relative_to(folder)
        if relative.parts[:2] == ("home", "keys") or relative.name == "server.key" or leave_out(relative):
            continue
        found[str(relative)] = path.read_bytes()
        if path.suffix == ".parquet":
            found[f"{relative} (rows)"] = "\n".join(decoded(pq.read_table(path).to_pylist())).encode()
    for what in ("flow_runs", "task_runs", "logs", "artifacts", "events"):
        found[f"api: {what}"] = "\n".join(decoded(filtered(used.place, what))).encode()
    found["database (rows)"] = rows(folder / "server" / "prefect.db").encode()
    return found


def rows(database: Path) -> str:
    """Return every cell of every table of the server's database."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        cells = [list(connection.execute(f'SELECT * FROM "{name}"')) for name in tables]
    finally:
        connection.close()
    return "\n".join(decoded(cells))


def leaks(found: dict[str, bytes], needles: list[bytes]) -> list[str]:
    return [where for where, content in found.items() if any(needle in content for needle in needles)]


def of_table(kind: str) -> Callable[[Path], bool]:
    return lambda path: "tables" in path.parts and kind in path.parts


def test_runs_through_nginx_leave_their_logs_artifacts_and_events(used: Used) -> None:
    assert {run["state_type"] for run in filtered(used.place, "flow_runs")} == {"COMPLETED"}
    assert any("3 quarantined" in log["message"] for log in filtered(used.place, "logs"))
    assert any(a["key"] == "ingest-test-notes" for a in filtered(used.place, "artifacts"))
    # Events reach the server through a WebSocket only.
    body = {"filter": {"event": {"prefix": ["prefect.task-run."]}}}
    wait_for(lambda: filtered(used.place, "events", **body)["total"] > 0, 60, "no event came through nginx")


def test_the_search_finds_what_is_there(used: Used) -> None:
    found = everything(used)
    assert "AWS_SESSION_TOKEN" in used.said
    assert {"database (rows)", "api: flow_runs", "api: logs", "worker.log"} <= set(leaks(found, [DATASET.encode()]))
    assert any(where.endswith(".html") and "reports" in where for where in leaks(found, [DATASET.encode()]))
    assert any("lineage" in where for where in leaks(found, [DATASET.encode()]))
    assert all("quarantine" in where for where in leaks(found, [MARKER.encode()]))
    assert any(of_table("accepted")(Path(where)) for where in leaks(found, [EMAIL.encode()]))


def test_no_secret_is_written_anywhere(used: Used) -> None:
    found = everything(used)
    leaked = {name: leaks(found, needles) for name, needles in used.secrets.items()}
    assert {name: where for name, where in leaked.items() if where} == {}


def test_a_quarantined_row_is_in_the_quarantine_only(used: Used) -> None:
    found = everything(used)
    where = leaks(found, [MARKER.encode()])
    assert where != []
    assert leaks(everything(used, of_table("quarantine")), spellings(MARKER.encode())) == []


def test_an_email_address_is_in_the_rows_as_they_came_only(used: Used) -> None:
    assert leaks(everything(used, of_table("accepted")), spellings(EMAIL.encode())) == []
