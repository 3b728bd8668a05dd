"""Stand-ins for the programs that people already run against this API: what they send, what they need back, how they fail.

The Python library and its command line tool (over the same HTTP library, with its habit of taking credentials from
`~/.netrc`), the cluster tool, the JavaScript tool (run by node), the shell tool (curl, grep and cut). They are as strict
as the originals: a status next to the right one, a missing field or a null where a string is formatted is a failure.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import requests

PERMANENT = ("400", "401", "403", "404", "409", "422")


class PythonError(Exception):
    """The Python library puts the raw body into the text of its exception, and programs search that text."""

    @property
    def is_permanent(self) -> bool:
        return any(code in str(self).lower() for code in PERMANENT)


class CutOff(BaseException):
    """The process of a client was killed here."""


class PythonClient:
    """killed_before: the method and the end of the path of the first request that is not sent any more."""

    def __init__(self, url: str, key: str | None = None, *, trust_netrc: bool = False) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.trust_env = trust_netrc
        self.session.headers["Content-Type"] = "application/json"
        if key:
            self.session.headers["Authorization"] = f"Bearer {key}"
        self.last: requests.Response | None = None
        self.killed_before: tuple[str, str] | None = None

    def close(self) -> None:
        self.session.close()

    def call(
        self, method: str, path: str, body: Any = None, *, ok: tuple[int, ...] = (200,), what: str = "", **query: Any
    ) -> Any:
        if self.killed_before and method == self.killed_before[0] and path.endswith(self.killed_before[1]):
            raise CutOff
        data = None if body is None else json.dumps(body)
        params = {name: value for name, value in query.items() if value is not None}
        answer = self.session.request(method, self.url + path, data=data, params=params, timeout=60)
        self.last = answer
        if answer.status_code not in ok:
            raise PythonError(f"Failed to {what or path}: {answer.text}")
        if answer.headers["Content-Type"] == "application/json":
            assert ": " not in answer.text.split('"metadata"')[0][:20], "answers are compact JSON"
            value = answer.json()
            assert not (isinstance(value, dict) and "error" in value), "an answer that is none of an error says `error`"
            return value
        return answer.text

    # System, databases

    def health(self) -> Any:
        return self.call("GET", "/health")

    def status(self) -> Any:
        return self.call("GET", "/status")

    def create_database(
        self, name: str, dimension: int = 128, index_type: str = "hnsw", description: str = "", **more: Any
    ) -> str:
        body = {
            "name": name,
            "description": description,
            "vectorDimension": dimension,
            "indexType": index_type,
            **more,
        }
        made = self.call("POST", "/v1/databases", body, ok=(201,), what="create database")
        found: str = made["databaseId"]
        assert found.startswith("db_")
        return found

    def list_databases(self) -> list[dict[str, Any]]:
        found = self.call("GET", "/v1/databases")
        listed: list[dict[str, Any]] = found if isinstance(found, list) else found["databases"]
        return listed

    def delete_database(self, database: str) -> None:
        self.call("DELETE", f"/v1/databases/{database}", what="delete database")

    # Vectors

    def store(self, database: str, vector_id: str, values: list[float], metadata: dict[str, Any] | None = None) -> None:
        body = {"id": vector_id, "values": values, "metadata": texts_of(metadata or {})}
        self.call("POST", f"/v1/databases/{database}/vectors", body, ok=(201,), what="store vector")

    def store_batch(self, database: str, vectors: list[tuple[str, list[float], dict[str, Any]]]) -> int:
        listed = [{"id": i, "values": v, "metadata": texts_of(m)} for i, v, m in vectors]
        body = {"vectors": listed, "upsert": True}
        count: int = self.call("POST", f"/v1/databases/{database}/vectors/batch", body, ok=(201,))["count"]
        return count

    def get(self, database: str, vector_id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.call("GET", f"/v1/databases/{database}/vectors/{vector_id}", what="get vector")
        except PythonError:
            assert self.last is not None
            if self.last.status_code == 404:
                return None
            raise
        return found

    def search(self, database: str, vector: list[float], top_k: int = 10, **more: Any) -> list[dict[str, Any]]:
        body = {"queryVector": vector, "topK": top_k, **more}
        found: list[dict[str, Any]] = self.call("POST", f"/v1/databases/{database}/search", body)["results"]
        return found


def texts_of(metadata: dict[str, Any]) -> dict[str, str]:
    """The Python library turns every value into its own text form before it sends it."""
    return {name: str(value) for name, value in metadata.items()}


class ClusterTool:
    """Sends no credential of its own: its HTTP library finds one in `~/.netrc`. Fails when an answer says `error`."""

    def __init__(self, url: str) -> None:
        self.url = url

    def run(self, method: str, path: str, body: Any = None) -> Any:
        answer = requests.request(method, f"{self.url}/api/v1/cluster/{path}", json=body, timeout=60)
        value = answer.json()
        if not answer.ok or "error" in value:
            raise PythonError(answer.text)
        return value


def write_netrc(folder: Path, user: str, secret: str) -> Path:
    path = folder / "netrc"
    path.write_text(f'machine 127.0.0.1 login {user} password "{secret}"\n')
    path.chmod(0o600)
    return path


_SHELL = r"""
set -eu
send() { curl -sS -X "$1" "$URL$2" -H 'Content-Type: application/json' ${TOKEN:+-H "Authorization: Bearer $TOKEN"} ${3:+-d "$3"}; }
TOKEN=""
ANSWER=$(send POST /v1/auth/login "{\"username\": \"$NAME\", \"password\": \"$SECRET\"}")
USER_ID=$(echo "$ANSWER" | grep -o '"user_id":"[^"]*"' | head -1 | cut -d'"' -f4)
TOKEN=$(echo "$ANSWER" | grep -o '"token":"[^"]*"' | cut -d'"' -f4)
KEY=$(send POST /v1/api-keys '{"description": "bootstrap"}' | grep -o '"apiKey":"[^"]*"' | cut -d'"' -f4)
TOKEN="$KEY"
DB=$(send POST /v1/databases '{"name": "shell_db", "dimension": 3, "indexType": "hnsw"}' \
  | grep -o '"databaseId":"[^"]*"' | cut -d'"' -f4)
send POST "/v1/databases/$DB/vectors" '{"id": "s1", "values": [0.1, 0.2, 0.3], "metadata": {"name": "one", "price": 79.99}}' \
  | grep -q '"status":"success"'
BODY=$(send GET "/v1/databases/$DB/vectors/s1")
send POST "/v1/databases/$DB/vectors" "$BODY" | grep -q '"created":false'
COUNT=$(send POST "/v1/databases/$DB/search" '{"queryVector": [0.1, 0.2, 0.3], "topK": 5}' | grep -o '"count":[0-9]*' | cut -d: -f2)
CODE=$(curl -s -o /dev/null -w '%{http_code}' "$URL/v1/databases")
LIMITED=$(send GET '/v1/security/audit-log?limit=1' | grep -o '"event_id"' | wc -l)
send DELETE "/v1/databases/$DB" | grep -q '"status":"success"'
STATE=$(send GET /health | grep -o '"status":"[a-z]*"' | cut -d'"' -f4)
echo "$USER_ID $COUNT $CODE $LIMITED $STATE $KEY"
"""


def run_shell_tool(url: str, name: str, secret: str) -> list[str]:
    """What the script cut out of answers: user id, count, status without a credential, events (twice each), health, key."""
    done = subprocess.run(
        ["bash", "-c", _SHELL], env={"URL": url, "NAME": name, "SECRET": secret, "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout.split()


_NODE = """
const [url, key] = process.argv.slice(1)
async function call(method, path, body) {
  const answer = await fetch(url + path, {method, signal: AbortSignal.timeout(60000),
    headers: {'Content-Type': 'application/json', Authorization: `Bearer ${key}`}, body: body && JSON.stringify(body)})
  const value = await answer.json()
  if (answer.status === 404) return null
  if (!answer.ok) throw new Error(value.message)
  return value
}
const out = {}
out.health = (await call('GET', '/health')).status
const made = await call('POST', '/api/v1/users', {email: 'js@example.org', role: 'developer'})
out.temporary = typeof made.temporary_password
out.roles = (await call('GET', '/api/v1/users/js@example.org')).roles
out.inactive = (await call('PUT', '/api/v1/users/js@example.org', {status: 'inactive'})).status
out.listed = (await call('GET', '/api/v1/users?role=developer&status=inactive')).users.map(u => u.email)
await call('DELETE', '/api/v1/users/js@example.org')
out.gone = await call('GET', '/api/v1/users/js@example.org')
const db = (await call('POST', '/v1/databases', {name: 'js_db', vectorDimension: 2, indexType: 'HNSW'})).databaseId
await call('POST', `/v1/databases/${db}/vectors`, {id: 'a@b.c+d', values: [1, 0.5], metadata: {price: 79.99, ok: true, none: null}})
out.vector = (await call('GET', `/v1/databases/${db}/vectors/a@b.c+d`)).metadata
out.none = await call('GET', `/v1/databases/${db}/vectors/none`)
out.results = (await call('POST', `/v1/databases/${db}/search`, {queryVector: [1, 0], topK: 1})).results.map(r => r.id)
try { await call('POST', `/v1/databases/${db}/search`, {queryVector: [1], topK: 1}) } catch (error) { out.refusal = error.message }
await call('DELETE', `/v1/databases/${db}`)
console.log(JSON.stringify(out))
"""


def run_javascript_tool(url: str, key: str) -> dict[str, Any]:
    done = subprocess.run(
        ["node", "--input-type=module", "-e", _NODE, url, key], capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def is_missing(*programs: str) -> bool:
    return any(shutil.which(program) is None for program in programs)
