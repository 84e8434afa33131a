"""Which server is a home's own, and with which password."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from data_contracts.errors import CausewayError
from flows.credentials import auth_file, make_auth
from flows.processes import Process, born
from flows.server import ServerState, authorise, deployed, read_state, record, running, server_environment, write_state
from flows.up import scale_of

NOBODY = Process("server", 2**22 + 1, "1")


def me(name: str, pool: str = "") -> Process:
    return Process(name, os.getpid(), born(os.getpid()), pool)


@pytest.fixture(autouse=True)
def no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    # Set first, so that what the code under test sets is taken back too.
    for name in ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def test_a_state_that_is_written_is_read(tmp_path: Path) -> None:
    state = ServerState("http://127.0.0.1:4300/api", "postgresql", (me("server"), me("worker home", "home")))
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


def test_a_home_without_a_server_has_no_state(tmp_path: Path) -> None:
    assert read_state(tmp_path) is None
    assert running(tmp_path) is None
    assert not deployed(tmp_path)


def test_a_port_that_another_took_after_our_server_died_is_not_ours(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    class Healthy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Healthy) as other:
        Thread(target=other.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{other.server_port}/api"
        write_state(tmp_path, ServerState(url, processes=(NOBODY,)))
        assert running(tmp_path) is None
        write_state(tmp_path, ServerState(url, processes=(me("server"),)))
        assert running(tmp_path) == url
        assert not deployed(tmp_path)
        record(tmp_path, url, me("worker home", "home"))
        assert deployed(tmp_path)
        other.shutdown()


def test_a_process_number_that_was_used_again_is_another_process() -> None:
    assert me("server").alive
    assert not Process("server", os.getpid(), "1").alive


def test_recording_replaces_a_process_of_the_same_name_and_forgets_the_dead(tmp_path: Path) -> None:
    write_state(tmp_path, ServerState("http://x/api", processes=(NOBODY, me("worker home", "home"))))
    state = record(tmp_path, "http://x/api", me("server"))
    assert [p.name for p in state.processes] == ["worker home", "server"]


def test_the_password_of_a_home_is_shown_by_server_and_clients(tmp_path: Path) -> None:
    password = make_auth(tmp_path).read_text().strip()
    authorise(tmp_path)
    assert os.environ["PREFECT_API_AUTH_STRING"] == password
    assert os.environ["PREFECT_SERVER_API_AUTH_STRING"] == password


def test_a_password_in_the_environment_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_auth(tmp_path)
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "ann:secret")
    authorise(tmp_path)
    assert os.environ["PREFECT_SERVER_API_AUTH_STRING"] == "ann:secret"


def test_a_password_that_others_may_read_is_refused(tmp_path: Path) -> None:
    make_auth(tmp_path).chmod(0o640)
    with pytest.raises(CausewayError, match=r"others may read this password; run: chmod 600"):
        authorise(tmp_path)


def test_a_file_that_holds_no_password_is_refused_without_showing_it(tmp_path: Path) -> None:
    make_auth(tmp_path)
    auth_file(tmp_path).write_text("oops-no-colon")
    with pytest.raises(CausewayError) as refused:
        authorise(tmp_path)
    assert "oops" not in str(refused.value)


def test_the_urls_of_the_databases_go_together_and_are_never_quoted() -> None:
    assert scale_of(None, None) is None
    for postgres, redis in (
        ("postgresql://u:hidden@h/d", None),
        (None, "redis://:hidden@h"),
        ("mysql://u:hidden@h/d", "redis://h"),
        ("postgresql://u:hidden@h/d", "http://:hidden@h"),
    ):
        with pytest.raises(CausewayError) as refused:
            scale_of(postgres, redis)
        assert "hidden" not in str(refused.value)


def test_a_server_in_several_processes_shares_all_its_state_through_redis() -> None:
    from prefect.settings import Settings

    scale = scale_of("postgres://u:p@127.0.0.1/d", "redis://127.0.0.1:6379/0")
    assert scale is not None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in scale.environment().items():
            patch.setenv(name, value)
        settings = Settings()
    url = settings.server.database.connection_url
    assert url is not None and url.get_secret_value() == "postgresql+asyncpg://u:p@127.0.0.1/d"
    assert (
        settings.server.events.messaging_broker == settings.server.events.messaging_cache == "prefect_redis.messaging"
    )
    assert settings.server.events.causal_ordering == "prefect_redis.ordering"
    assert settings.server.concurrency.lease_storage == "prefect_redis.lease_storage"
    assert settings.server.worker_channel.cleanup_queue_storage == "prefect_redis.cleanup_queue"
    assert settings.server.docket.url == "redis://127.0.0.1:6379/0"
    assert not settings.server.database.migrate_on_start


def test_a_server_keeps_slots_that_are_held_in_files(tmp_path: Path) -> None:
    storage = server_environment(tmp_path, "127.0.0.1", 4200)["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert storage.endswith(".filesystem")
