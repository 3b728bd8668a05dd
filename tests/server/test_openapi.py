"""The API description is true: generated requests, valid and not, are answered as it says, and never with a server error."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.serving import serving

from jadevectordb.gateway.rest.routes import all_routes

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
# Stopping is not for this test; and waiting answers 503 when it was told to wait for no time at all.
LEFT_OUT = "shutdown|wait-indexed|compact"


def test_every_route_is_described(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        status, document = server.call("GET", "/openapi.json")
    assert status == 200 and document["openapi"] == "3.1.0"
    for route in all_routes():
        if not route.template.startswith(("/console", "/docs", "/openapi")) and route.template != "/":
            described = document["paths"][route.template][route.method.lower()]
            assert {p["name"] for p in described.get("parameters", [])} >= set(re.findall(r"{(\w+)}", route.template))
            assert described["summary"]


def test_generated_requests_find_no_server_error(tmp_path: Path) -> None:
    with serving(tmp_path / "data") as server:
        # Ids that generated paths often hold: so that some of them reach the code behind
        for name in ("0", "x"):
            server.call(
                "POST", "/v2/databases", {"name": name, "dimension": 3, "schema": {"t": "text", "n": "integer"}}
            )
            server.call("POST", f"/v2/databases/{name}/vectors", {"ids": ["0", "x"], "values": [[1, 2, 3], [3, 2, 1]]})
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"{server.url}/openapi.json", "--max-examples", "4",
            "--phases", "examples,coverage,fuzzing", "--checks", CHECKS, "--exclude-path-regex", LEFT_OUT, "--seed", "11",
            "--no-color",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
        assert done.returncode == 0, done.stdout[-6000:]
        assert "Traceback" not in server.log()
        assert server.call("GET", "/health")[0] == 200
