"""The demo by deployments: three sites as three work pools, and the same model to the byte."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.acceptance.api import Api, free_port
from tests.acceptance.conftest import Demo, run, run_json

# The mixed run goes through three pools and the same deployments in .ci/run.
pytestmark = [pytest.mark.acceptance, pytest.mark.long, pytest.mark.timeout(1500)]


def test_three_sites_train_as_three_work_pools_and_make_the_same_model(demo: Demo, tmp_path: Path) -> None:
    home, port = tmp_path / "home", free_port()
    # Record ids and signatures hang on the keys: with the same keys the same packages make the same run.
    home.mkdir()
    shutil.copytree(demo.home / "keys", home / "keys")
    try:
        run_json("up", "--home", home, "--port", str(port), timeout=600)
        made = run_json("demo", "--deployed", "--quick", "--home", home, timeout=1200)
        assert made["run"] == demo.run
        assert made["model_sha"] == demo.document["model_sha"]
        assert (made["chain_verified"], made["violations_of_policy"], made["rounds"]) == (
            True,
            0,
            demo.document["rounds"],
        )
        runs = Api(port).runs(flows={"name": {"any_": ["train-site", "evaluate-site"]}})
        assert {r["work_pool_name"] for r in runs} == {"east", "north", "west"}
        assert {r["state_type"] for r in runs} == {"COMPLETED"}
        verified = run("verify", demo.run, "--home", home, "--json")
        assert json.loads(verified.stdout.splitlines()[-1])["model_sha"] == demo.document["model_sha"]
    finally:
        run("down", "--home", home)
