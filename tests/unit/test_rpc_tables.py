"""The tables of the gRPC door hold together: messages, methods, rights, statuses, and the code that is made from the .proto files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import grpc
from google.protobuf import descriptor_pool

from jadevectordb.gateway.access.operations import OPERATIONS
from jadevectordb.gateway.rpc.errors import STATUS
from jadevectordb.gateway.rpc.generated import database_pb2, search_pb2, types_pb2, vectors_pb2, worker_pb2
from jadevectordb.gateway.rpc.table import RPC_OPERATIONS, RPCS, Kind
from jadevectordb.model.errors import ErrorCode
from jadevectordb.model.index_kind import IndexKind
from jadevectordb.model.metric import Metric

ROOT = Path(__file__).parents[2]
GENERATED = ROOT / "src/jadevectordb/gateway/rpc/generated"
MODULES = (types_pb2, database_pb2, vectors_pb2, search_pb2, worker_pb2)


def test_the_code_is_made_from_the_proto_files(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    subprocess.run(["bash", str(ROOT / "proto/generate.sh"), str(tmp_path)], check=True, env=environment)
    made = {path.name: path.read_text() for path in tmp_path.iterdir()}
    committed = {path.name: path.read_text() for path in GENERATED.iterdir() if "_pb2" in path.name and path.is_file()}
    assert made == committed, "run proto/generate.sh and commit what it made"


def test_every_method_of_the_proto_files_is_served_in_its_form() -> None:
    described = {}
    for module in MODULES:
        for service in module.DESCRIPTOR.services_by_name.values():
            for method in service.methods:
                described[f"/{service.full_name}/{method.name}"] = (
                    method.input_type.full_name,
                    method.client_streaming,
                    method.server_streaming,
                )
    forms = {
        Kind.UNARY: (False, False),
        Kind.WAIT: (False, False),
        Kind.SERVER_STREAM: (False, True),
        Kind.BOTH_STREAM: (True, True),
    }
    served = {rpc.path: (rpc.request.DESCRIPTOR.full_name, *forms[rpc.kind]) for rpc in RPCS}
    assert served == described


def test_every_method_names_an_operation_that_there_is() -> None:
    assert set(RPC_OPERATIONS.values()) <= set(OPERATIONS)
    assert {rpc.path for rpc in RPCS} <= set(RPC_OPERATIONS)
    public = {path for path, operation in RPC_OPERATIONS.items() if OPERATIONS[operation].right == "none"}
    assert public == {f"/grpc.health.v1.Health/{name}" for name in ("Check", "List", "Watch")}


def test_every_error_has_a_status() -> None:
    assert set(STATUS) == set(ErrorCode)
    assert grpc.StatusCode.OK not in STATUS.values()
    assert grpc.StatusCode.UNKNOWN not in STATUS.values(), "unknown is what we did not foresee"


def test_enums_say_what_the_engine_knows() -> None:
    assert {f"METRIC_{metric.name}" for metric in Metric} | {"METRIC_UNSPECIFIED"} == set(types_pb2.Metric.keys())
    assert {f"INDEX_KIND_{kind.name}" for kind in IndexKind} | {"INDEX_KIND_UNSPECIFIED"} == set(
        types_pb2.IndexKind.keys()
    )


def test_everything_in_the_proto_files_is_explained() -> None:
    """A service has a comment; a line of it that is no comment and no bracket may not be longer than a screen is wide."""
    for path in sorted((ROOT / "proto/jadevectordb/v1").glob("*.proto")):
        lines = path.read_text().splitlines()
        assert lines[0].startswith("// "), f"{path.name} begins with what it is for"
        for number, line in enumerate(lines):
            if line.startswith("service "):
                assert lines[number - 1].startswith("//"), f"{path.name}:{number + 1}"
            assert len(line) <= 140, f"{path.name}:{number + 1}"


def test_reflection_finds_what_is_served() -> None:
    pool = descriptor_pool.Default()
    for rpc in RPCS:
        assert pool.FindServiceByName(rpc.service).FindMethodByName(rpc.name) is not None
