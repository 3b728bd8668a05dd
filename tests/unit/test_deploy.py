"""Files for running a server somewhere: what they name exists. They are not run here; what can be known without that is checked."""

from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import ipaddress
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from packaging.requirements import Requirement
from prometheus_client.parser import text_string_to_metric_families
from tests.telemetry_world import HandClock, telemetry_of, watched

import jadevectordb as jade
from jadevectordb.adapters.os_host import OsHost
from jadevectordb.cli import serve
from jadevectordb.gateway.rest.routes import all_routes
from jadevectordb.gateway.service.telemetry import Telemetry
from jadevectordb.model.errors import ErrorCode
from jadevectordb.settings import cluster as cluster_settings
from jadevectordb.settings.schema import ServerSettings
from jadevectordb.settings.sources import load, names, variable_of

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana" / "jadevectordb.json").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMMANDS = {command.name: command for command in serve.COMMANDS}
VARIABLES = {variable_of(name) for name in names()}
FROM_PROMETHEUS = {"instance", "job"}  # labels that scraping adds


# Metrics


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Names and labels of the metrics of a server on which a little of everything has happened."""
    folder, clock = tmp_path_factory.mktemp("deploy"), HandClock()
    with jade.open(folder) as store:
        database = store.create_database("a", 4)
        database.upsert(["a", "b"], np.eye(4)[:2])
        entry = watched(database)
        telemetry = telemetry_of([entry], clock=clock, host=OsHost(folder), recall_one_in=1, slow_query_ms=0.0)
        telemetry.meter("rest", "POST", "/v2/databases/{db}/search", "search").record(200, 0.001, 10, 10)
        telemetry.count_error(ErrorCode.NOT_FOUND)
        telemetry.observe_search(entry, np.ones(4), 1, None, 0.9, database.search(np.ones(4), k=1), 0.001)
        clock.moment_s += 5
        telemetry.step()
        wait_for_ticks(telemetry, clock)
        found: dict[str, set[str]] = {}
        for family in text_string_to_metric_families(telemetry.render_prometheus().decode()):
            for sample in family.samples:
                found.setdefault(sample.name, set()).update(sample.labels)
    return found


def wait_for_ticks(telemetry: Telemetry, clock: HandClock) -> None:
    """Until the kernel has counted a tick: a share of the CPU needs one."""
    while telemetry.system_usage().cpu_percent is None:
        clock.moment_s += 2


def expressions_of_dashboard() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", [])]


def expressions_of_alerts() -> list[str]:
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    return [rule["expr"] for rule in group["rules"]]


def used(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:jadevectordb|process)_[a-z_0-9]+", re.sub(r'"[^"]*"', '""', expression)))


def test_dashboard_and_alerts_name_metrics_and_labels_that_exist(metrics: dict[str, set[str]]) -> None:
    expressions = expressions_of_dashboard() + expressions_of_alerts()
    assert len(expressions) > 40
    for expression in expressions:
        assert used(expression) or expression.startswith("up{"), expression
        labels = set().union(*(metrics.get(name, set()) for name in used(expression))) | FROM_PROMETHEUS
        for name in used(expression):
            assert name in metrics, f"{name} in {expression}"
        for name, matchers in re.findall(r"((?:jadevectordb|process)_[a-z_0-9]+)\{([^}]*)\}", expression):
            for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
                assert label in metrics[name] | FROM_PROMETHEUS, f"label {label} of {name} in {expression}"
        for group in re.findall(r"\bby \(([^)]*)\)", expression):
            assert {label.strip() for label in group.split(",")} <= labels, expression
        assert expression.count("(") == expression.count(")")
        assert expression.count("{") == expression.count("}")


def test_counters_are_rates_and_gauges_are_not(metrics: dict[str, set[str]]) -> None:
    for expression in expressions_of_dashboard() + expressions_of_alerts():
        for name in used(expression):
            rated = f"rate({name}" in expression
            assert rated == name.endswith(("_total", "_bucket", "_sum", "_count")), f"{name} in {expression}"


def test_every_metric_is_shown_somewhere(metrics: dict[str, set[str]]) -> None:
    shown = set().union(*map(used, expressions_of_dashboard() + expressions_of_alerts()))
    base = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in shown}
    ours = {re.sub(r"_(bucket|sum|count|total)$", "", name) for name in metrics if name.startswith("jadevectordb_")}
    hidden = {
        "jadevectordb_info",
        "jadevectordb_databases",
        "jadevectordb_request_duration_seconds",
        "jadevectordb_recall_measurements",
    }
    assert ours - base == hidden


def test_dashboard_loads_without_edits() -> None:
    variables = {variable["name"]: variable for variable in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert "__inputs" not in DASHBOARD, "a dashboard with inputs is not provisioned as it is"
    assert DASHBOARD["id"] is None
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        for part in (panel, *panel.get("targets", [])):
            assert panel["type"] == "row" or part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    text = json.dumps(DASHBOARD)
    assert set(re.findall(r"\$(\w+)", text)) - {"__rate_interval", "__all"} <= set(variables)
    for variable in variables.values():
        if variable["type"] == "query":
            assert used(variable["definition"])


def test_prometheus_files() -> None:
    settings = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())
    (scrape,) = settings["scrape_configs"]
    assert scrape["job_name"] == "jadevectordb"
    assert scrape["metrics_path"] in {route.template for route in all_routes()}
    assert scrape["static_configs"][0]["targets"] == [f"server:{ServerSettings().port}"]
    for name in settings["rule_files"]:
        assert (DEPLOY / name).is_file()
    (group,) = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}


# Container


def instructions() -> list[tuple[str, str]]:
    joined = re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.M))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]  # type: ignore[misc]


def test_dockerfile() -> None:
    steps = instructions()
    last = dict(steps)
    ours = dict(re.findall(r"(JADEVECTORDB_\w+)=(\S+)", DOCKERFILE))
    assert set(ours) <= VARIABLES
    load(None, ours, {})
    assert last["USER"] not in ("root", "0")
    assert last["VOLUME"] == ours["JADEVECTORDB_DATA"]
    assert [int(port) for port in last["EXPOSE"].split()] == [ServerSettings().port, ServerSettings().grpc_port]
    health = re.search(r"http://127\.0\.0\.1:(\d+)(/[\w/]+)", last["HEALTHCHECK"])
    assert health is not None
    assert int(health[1]) == ServerSettings().port
    assert [route.operation for route in all_routes() if route.template == health[2]] == ["health"]
    program = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    compile(program[2], "healthcheck", "exec")
    assert [*json.loads(last["ENTRYPOINT"]), *json.loads(last["CMD"])] == ["jade", "serve"]
    assert "serve" in COMMANDS
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    for name, arguments in steps:
        if name == "COPY" and "--from" not in arguments:
            for source in arguments.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert source in allowed, f"{source} is not let into the build"


def test_compose() -> None:
    server = COMPOSE["services"]["server"]
    ours = {name: re.sub(r"\$\{\w+:-(.*)\}", r"\1", value) for name, value in server["environment"].items()}
    assert set(ours) <= VARIABLES
    settings = load(None, ours, {}).settings
    (allowed,) = settings.auth.metrics_allow
    (subnet,) = (one["subnet"] for one in COMPOSE["networks"]["monitoring"]["ipam"]["config"])
    assert ipaddress.ip_network(allowed) == ipaddress.ip_network(subnet)
    published = [int(port.rpartition(":")[2]) for port in server["ports"]]
    assert published == [ServerSettings().port, ServerSettings().grpc_port]
    assert all(
        port.startswith("127.0.0.1:") for service in COMPOSE["services"].values() for port in service.get("ports", [])
    )
    assert "profiles" not in server
    for name in ("prometheus", "grafana"):
        assert COMPOSE["services"][name]["profiles"] == ["monitoring"]
    for service in COMPOSE["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source in COMPOSE["volumes"] or (ROOT / source).exists(), volume
        for network in service["networks"]:
            assert network in COMPOSE["networks"]
    assert "server:/data" not in server["volumes"]
    assert "data:/data" in server["volumes"]


def test_cluster_compose_makes_nodes_that_find_each_other() -> None:
    compose: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.cluster.yml").read_text())
    reached: dict[str, str] = {}
    for name, service in compose["services"].items():
        environment = {
            key: re.sub(r"\$\{.*\}", "0123456789abcdef", value) for key, value in service["environment"].items()
        }
        assert environment.keys() <= VARIABLES | {"JADEVECTORDB_ADMIN_PASSWORD"}
        own = load(None, environment, {}).settings.cluster
        assert own.enabled and own.node_id == own.peer_host == name
        assert {node.host for node in cluster_settings.nats_nodes(own)} == set(compose["services"])
        assert cluster_settings.keeps_log(own)
        published = service["ports"][0].rsplit(":", 1)[0]
        reached[name] = own.rest_url
        assert own.rest_url == f"http://{published}" and service["volumes"] == [f"{name}:/data"]
        assert compose["volumes"].keys() == compose["services"].keys()
    assert len(set(reached.values())) == 3


def test_grafana_provisioning_fits_the_compose_file() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "jadevectordb.yml").read_text())["providers"]
    mounted = [volume.split(":")[1] for volume in COMPOSE["services"]["grafana"]["volumes"]]
    assert f"{provider['options']['path']}/jadevectordb.json" in mounted


# systemd, settings


def test_systemd_unit() -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(DEPLOY / "systemd" / "jadevectordb.service")
    program, command, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "jade"
    flags = {flag for parameter in COMMANDS[command].params for flag in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= flags
    data = arguments[arguments.index("--data") + 1]
    assert data == f"/var/lib/{unit['Service']['StateDirectory']}"
    stop_s = int(unit["Service"]["TimeoutStopSec"])
    assert stop_s > ServerSettings().drain_s
    assert unit["Service"]["User"] != "root"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "systemd" / "jadevectordb.service").read_text()
    copy = tmp_path / "jadevectordb.service"
    copy.write_text(
        unit.replace("/opt/jadevectordb/bin/jade", sys.executable)
    )  # verify asks for a program that is there
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert "jadevectordb.service" not in done.stderr, done.stderr


def test_settings_file_loads() -> None:
    known = load(str(DEPLOY / "jadevectordb.toml"), {}, {})
    assert known.settings.auth.registration == "off"
    assert known.settings.server == ServerSettings()


def test_readme_names_files_that_exist() -> None:
    text = (DEPLOY / "README.md").read_text()
    for name in re.findall(r"`((?:deploy/|grafana/|prometheus)[\w./-]+)`", text):
        assert (ROOT / name).exists() or (DEPLOY / name).exists(), name
    for name in re.findall(r"\b(?:server|auth|log|telemetry|limits|tls)\.[a-z_]+\b", text):
        assert name in names(), name
    for variable in re.findall(r"JADEVECTORDB_[A-Z_]*[A-Z]", text):
        assert variable in VARIABLES or any(known.startswith(variable) for known in VARIABLES), variable


# The lock


@pytest.fixture(scope="module")
def splitter() -> ModuleType:
    spec = importlib.util.spec_from_file_location("production_lock", DEPLOY / "production_lock.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["production_lock"] = module
    spec.loader.exec_module(module)
    return module


def needed(root: str, seen: set[str]) -> set[str]:
    """Installed packages that this one needs here, by their own metadata."""
    requirement = Requirement(root)
    name = re.sub(r"[-_.]+", "-", requirement.name).lower()
    if name in seen:
        return seen
    seen.add(name)
    for text in importlib.metadata.requires(requirement.name) or []:
        child = Requirement(text)
        if child.marker is None or any(
            child.marker.evaluate({"extra": extra}) for extra in (requirement.extras or {""})
        ):
            needed(text, seen)
    return seen


@pytest.mark.parametrize("extras", [[], ["embeddings", "telemetry", "parquet"]])
def test_split_lock_is_complete_and_lean(splitter: ModuleType, extras: list[str]) -> None:
    project = (ROOT / "pyproject.toml").read_text()
    lock = splitter.parse_lock((ROOT / "requirements.lock").read_text())
    wanted = splitter.roots(project, extras)
    kept = {locked.name for locked in splitter.production(lock, wanted)}
    closure: set[str] = set()
    for name in wanted:
        needed(name, closure)
    assert closure <= kept
    for tool in (
        "pytest",
        "mypy",
        "ruff",
        "hypothesis",
        "schemathesis",
        "playwright",
        "llama-index-core",
        "langchain-core",
    ):
        assert tool not in kept
    assert len(kept) < len({locked.name for locked in lock}) / 2
    assert ("onnxruntime" in kept) == ("embeddings" in extras)


def test_split_lock_keeps_hashes_and_versions(splitter: ModuleType) -> None:
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "production_lock.py"), "--extra", "telemetry", "--also", "hatchling"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lock = (ROOT / "requirements.lock").read_text()
    lines = done.stdout.splitlines()
    assert {line for line in lines if not line.startswith(" ")} <= set(lock.splitlines())
    assert sum("--hash=" in line for line in lines) > 500
    assert any(line.startswith("hatchling==") for line in lines)
    for block in re.split(r"\n(?=\S)", done.stdout.strip()):
        assert "--hash=sha256:" in block, block[:80]
    wrong = subprocess.run(
        [sys.executable, str(DEPLOY / "production_lock.py"), "--extra", "nonsense"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert wrong.returncode == 1
    assert "there is no extra nonsense" in wrong.stderr


def test_dockerfile_asks_for_extras_that_exist(splitter: ModuleType) -> None:
    extras = re.findall(r"--extra (\S+)", DOCKERFILE)
    assert extras
    splitter.roots((ROOT / "pyproject.toml").read_text(), extras)
