"""Rounds of work, death and examination of a whole server: `jade serve` is killed under load and started again on its folder.

    work         writers over REST and gRPC (`server_writers`), and somebody who makes users, keys, sessions and databases
    death        SIGKILL at a random moment
    examination  the next server must show everything that was acknowledged, what was on its way whole or not at all

Account changes are audited before they are acknowledged, so their events are counted too.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import jadevectordb as jade
from tests.crash.server_writers import DIMENSION, GrpcWriter, RestWriter, Row, Writer, row_of, settle
from tests.serving import ADMIN_PASSWORD, ServerProcess

DATABASES = {"one": {"metric": "euclidean"}, "two": {"metric": "cosine", "shards": 2, "index": "IVF"}}
KINDS = (
    "user_create", "user_delete", "api_key_create", "api_key_revoke", "login", "logout", "database_create", "database_delete",
)  # fmt: skip
PASSWORD = "a long password 1"
_WORK_S_MAX = 1.5
_ADMIN = {"JADEVECTORDB_ADMIN_PASSWORD": ADMIN_PASSWORD, "JADEVECTORDB_LIMITS_REGISTRATIONS_PER_HOUR": "1000000"}


class Clerk(threading.Thread):
    """Makes and ends users, API keys, sessions and databases, one at a time, and remembers what was acknowledged.

    present, gone: what there must be, and must not be. doubtful: what was on its way when the server died.
    """

    def __init__(self, server: ServerProcess, token: str, seed: int, book: Book) -> None:
        super().__init__(name="clerk", daemon=True)
        self.book = book
        self.trouble: Exception | None = None
        self.is_killed = threading.Event()
        self._address = server.url.removeprefix("http://")
        self._token = token
        self._chance = Random(f"clerk/{seed}")

    def run(self) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=60)
        try:
            while not self.is_killed.is_set():
                self._operate(connection)
        except Exception as error:
            if not self.is_killed.is_set():
                self.trouble = error
        finally:
            connection.close()

    def _operate(self, connection: http.client.HTTPConnection) -> None:
        book, chance = self.book, self._chance
        draw = chance.random()
        if draw < 0.3 or not book.users:
            book.made += 1
            name = f"user{book.made}"
            book.on_its_way = ("user_create", name)
            body = {"username": name, "password": PASSWORD, "roles": ["developer"]}
            book.users[name] = self._call(connection, "POST", "/v1/users", body)["user_id"]
        elif draw < 0.5:
            owner = chance.choice(sorted(book.users))
            book.on_its_way = ("api_key_create", owner)
            made = self._call(connection, "POST", "/v1/api-keys", {"user_id": book.users[owner], "description": "k"})
            book.keys[made["api_key"]] = (made["key_id"], owner)
        elif draw < 0.65:
            owner = chance.choice(sorted(book.users))
            book.on_its_way = ("login", owner)
            made = self._call(connection, "POST", "/v1/auth/login", {"username": owner, "password": PASSWORD})
            book.sessions[made["token"]] = owner
        elif draw < 0.75 and book.keys:
            key = chance.choice(sorted(book.keys))
            book.on_its_way = ("api_key_revoke", key)
            self._call(connection, "DELETE", f"/v1/api-keys/{book.keys[key][0]}")
            book.keys.pop(key)
            book.gone.append(key)
        elif draw < 0.82 and book.sessions:
            token = chance.choice(sorted(book.sessions))
            book.on_its_way = ("logout", token)
            self._call(connection, "POST", "/v1/auth/logout", {}, token)
            book.sessions.pop(token)
            book.gone.append(token)
        elif draw < 0.88 and len(book.users) > 3:
            name = chance.choice(sorted(book.users))
            book.on_its_way = ("user_delete", name)
            self._call(connection, "DELETE", f"/v1/users/{book.users[name]}")
            book.forget_user(name)
        elif draw < 0.95 or not book.databases:
            book.made += 1
            name = f"made{book.made}"
            book.on_its_way = ("database_create", name)
            self._call(connection, "POST", "/v2/databases", {"name": name, "dimension": 2})
            book.databases.add(name)
        else:
            name = chance.choice(sorted(book.databases))
            book.on_its_way = ("database_delete", name)
            self._call(connection, "DELETE", f"/v2/databases/{name}")
            book.databases.discard(name)
        kind = book.on_its_way[0]
        book.events[kind] += 1
        book.on_its_way = ("", "")

    def _call(
        self, connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, token: str = ""
    ) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {token or self._token}"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        said = answer.read()
        assert answer.status in (200, 201), f"{method} {path}: {answer.status} {said[:500]!r}"
        return json.loads(said)


class Book:
    """What the clerk was told. events: acknowledged ones by kind."""

    def __init__(self) -> None:
        self.users: dict[str, str] = {}  # id by name
        self.keys: dict[str, tuple[str, str]] = {}  # id and owner by secret
        self.sessions: dict[str, str] = {}  # owner by token
        self.databases: set[str] = set()
        self.gone: list[str] = []  # credentials that ended
        self.events: Counter[str] = Counter()
        self.on_its_way = ("", "")
        self.made = 0

    def forget_user(self, name: str) -> None:
        self.users.pop(name)
        for key in [k for k, (_, owner) in self.keys.items() if owner == name]:
            self.keys.pop(key)
            self.gone.append(key)
        for token in [t for t, owner in self.sessions.items() if owner == name]:
            self.sessions.pop(token)
            self.gone.append(token)


class ServerCampaign:
    """folder: empty or new; the server's data lies in `folder/data`."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.rounds = 0
        self.acknowledged = 0
        self._seed = seed
        self._chance = Random(seed)
        self._stored: dict[str, dict[str, Row]] = {}
        self._book = Book()
        self._writers: list[Writer] = []
        self._server = self._start()
        self._token = self._sign_in()
        for name, shape in DATABASES.items():
            self._call("POST", "/v2/databases", {"name": name, "dimension": DIMENSION, **shape})
        for kind in KINDS:
            self._book.events[kind] = self._events(kind)

    def close(self) -> None:
        self._server.kill()

    def run_round(self) -> None:
        """Load, death, a new server, examination."""
        self.rounds += 1
        writers, clerk = self._load()
        for thread in (*writers, clerk):
            thread.is_killed.set()
        self._server.kill()
        for thread in (*writers, clerk):
            thread.join(120)
            assert not thread.is_alive(), f"{thread.name} hangs"
            if thread.trouble is not None:
                raise AssertionError(f"{thread.name} failed while the server lived") from thread.trouble
        self.acknowledged += sum(writer.acknowledged for writer in writers)
        self._server = self._start()
        self._examine(writers)
        self._examine_accounts()

    def finish(self) -> None:
        """Stop in order, and look at the folder without a server."""
        assert self._server.stop() == 0
        assert "Traceback" not in self._server.log()
        with jade.open(self.folder / "data") as store:
            assert len([name for name in store.databases() if not name.startswith("_")]) == len(DATABASES) + len(
                self._book.databases
            )
            for name in store.databases():
                store.database(name).verify()

    def _start(self) -> ServerProcess:
        return ServerProcess(self.folder / "data", auth="required", env=_ADMIN)

    def _load(self) -> tuple[list[Writer], Clerk]:
        seed = self._seed * 1000 + self.rounds
        writers: list[Writer] = []
        for number, database in enumerate((*DATABASES, *DATABASES)):
            for kind, make, place in (("rest", RestWriter, self._server.url), ("grpc", GrpcWriter, self._server.grpc)):
                if number < 2 or kind == "rest":
                    name = f"{kind}{number}"
                    writers.append(make(place, name, database, self._token, seed, self._stored.setdefault(name, {})))
        clerk = Clerk(self._server, self._token, seed, self._book)
        work_s = self._chance.uniform(0.1, _WORK_S_MAX)
        for thread in (*writers, clerk):
            thread.start()
        # At a moment that nothing in the server can know of
        time.sleep(work_s)
        return writers, clerk

    # Examination

    def _call(self, method: str, path: str, body: Any = None, token: str = "") -> Any:
        status, answer = self._server.call(method, path, body, token=token or self._token)
        assert status in (200, 201), f"{method} {path}: {status} {answer}"
        return answer

    def _sign_in(self) -> str:
        answer = self._server.call("POST", "/v1/auth/login", {"username": "admin", "password": ADMIN_PASSWORD})[1]
        token: str = answer["token"]
        return token

    def _examine(self, writers: list[Writer]) -> None:
        for database in DATABASES:
            found = self._rows(database)
            assert self._call("POST", f"/v2/databases/{database}/count", {})["count"] == len(found)
            mine = [writer for writer in writers if writer.database == database]
            for writer in mine:
                settle(writer, {name: row for name, row in found.items() if name.startswith(f"{writer.name}-")})
            assert found.keys() == {name for writer in mine for name in writer.stored}
            for name in self._chance.sample(sorted(found), min(5, len(found))):
                vector = np.frombuffer(found[name].vector, np.float32).tolist()
                hits = self._call("POST", f"/v2/databases/{database}/search", {"vector": vector, "k": 1, "recall": 1})[
                    "hits"
                ]
                assert hits[0]["id"] == name, f"{name} is stored, but not found by a search"

    def _rows(self, database: str) -> dict[str, Row]:
        found: dict[str, Row] = {}
        cursor = None
        while True:
            body = {"limit": 5000, "cursor": cursor, "include": ["metadata", "vector"]}
            page = self._call("POST", f"/v2/databases/{database}/vectors/scroll", body)
            for item in page["vectors"]:
                assert item["id"] not in found
                found[item["id"]] = row_of(item["vector"], item["metadata"])
            cursor = page["cursor"]
            if cursor is None:
                return found

    def _examine_accounts(self) -> None:
        book = self._book
        kind, subject = book.on_its_way
        self._settle(kind, subject)
        users = {user["username"] for user in self._call("GET", "/v1/users?limit=1000")["users"]} - {"admin"}
        assert users == set(book.users), f"{sorted(users ^ set(book.users))} differ; {kind} {subject} was on its way"
        databases = {one["name"] for one in self._call("GET", "/v2/databases")["databases"]} - set(DATABASES)
        assert databases == book.databases, (
            f"{sorted(databases ^ book.databases)} differ; {kind} {subject} was on its way"
        )
        for credential in (*book.keys, *book.sessions):
            assert self._server.call("GET", "/v1/auth/me", token=credential)[0] == 200, (
                "an acknowledged credential is not known"
            )
        for credential in book.gone[-50:]:
            assert self._server.call("GET", "/v1/auth/me", token=credential)[0] == 401, "a credential that ended works"
        for event, count in book.events.items():
            shown = self._events(event)
            assert shown - count in ((0, 1) if event == kind else (0,)), (
                f"{event}: {shown} in the audit log, {count} acknowledged"
            )
            book.events[event] = shown
        book.on_its_way = ("", "")

    def _events(self, kind: str) -> int:
        shown: int = self._call("GET", f"/v1/security/audit-log?event_type={kind}&limit=1")["total"]
        return shown

    def _settle(self, kind: str, subject: str) -> None:
        """What was on its way took place or did not; the book follows what the server shows."""
        book = self._book
        users = {user["username"]: user["user_id"] for user in self._call("GET", "/v1/users?limit=1000")["users"]}
        databases = {one["name"] for one in self._call("GET", "/v2/databases")["databases"]}
        match kind:
            case "user_create" if subject in users:
                book.users[subject] = users[subject]
            case "user_delete" if subject not in users:
                book.forget_user(subject)
            case "user_delete":  # not deleted, but its credentials may have ended already
                for held in (book.keys, book.sessions):
                    for credential in [c for c in held if self._server.call("GET", "/v1/auth/me", token=c)[0] == 401]:
                        held.pop(credential)  # type: ignore[attr-defined]
            case "database_create" if subject in databases:
                book.databases.add(subject)
            case "database_delete" if subject not in databases:
                book.databases.discard(subject)
            case "api_key_revoke" | "logout":
                if self._server.call("GET", "/v1/auth/me", token=subject)[0] == 401:
                    book.keys.pop(subject, None)
                    book.sessions.pop(subject, None)
