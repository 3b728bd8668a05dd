"""Every RPC there is, without a credential, with a wrong, revoked or expired one, with too little, and with just enough."""

from __future__ import annotations

import base64
import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from tests.rpc_world import ADMIN_PASSWORD, Caller, Failed, listening, services

from jadevectordb.gateway.access.operations import OPERATIONS, Right, Scope
from jadevectordb.gateway.rpc.table import HEALTH, REFLECTION, RPC_OPERATIONS, RPCS
from jadevectordb.gateway.service.services import Services
from jadevectordb.ports.event_log import EventFilter

PASSWORD = "a long enough password"
Metadata = tuple[tuple[str, str], ...]
PRIVATE = sorted(set(RPC_OPERATIONS) - {f"/{HEALTH}/{name}" for name in ("Check", "List", "Watch")})


class World:
    """A server that requires credentials, one database, and people with different rights on it."""

    def __init__(self, built: Services, channel: grpc.Channel) -> None:
        self.services = built
        self.channel = channel
        self.users = {
            name: built.access.accounts.create(name, PASSWORD, roles=roles).user_id
            for name, roles in {
                "owner": ("developer",),
                "writer": ("developer",),
                "reader": ("user",),
                "stranger": ("developer",),
                "onlooker": ("viewer",),
            }.items()
        }
        self.users["admin"] = built.access.accounts.require("admin").user_id
        self.database = built.catalog.create("private", 2, self.users["owner"]).id
        built.catalog.update(self.database, grants={self.users["writer"]: "write", self.users["reader"]: "read"})

    def key(self, name: str, *permissions: str) -> Metadata:
        secret, _ = self.services.access.keys.create(self.users[name], permissions=permissions)
        return (("x-api-key", secret),)

    def ask(self, path: str, metadata: Metadata = (), database: str | None = None) -> Failed | None:
        """The call with a message that names the database and nothing else; how it failed, None when it was answered."""
        rpc = next((rpc for rpc in RPCS if rpc.path == path), None)
        message = b""
        if rpc is not None:
            fields = rpc.request.DESCRIPTOR.fields_by_name
            named: dict[str, Any] = {"database": database or self.database}
            if "database" in fields:
                message = rpc.request(**named).SerializeToString()
            elif "shard" in fields:
                message = rpc.request(shard=named).SerializeToString()
        try:
            list(self.channel.stream_stream(path)(iter([message]), timeout=60, metadata=metadata))
        except grpc.RpcError as error:
            return Failed(error)
        return None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("rights")
    with (
        services(folder, auth__admin_password=ADMIN_PASSWORD) as built,
        listening(built) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        yield World(built, channel)


def status(failed: Failed | None) -> str:
    return "OK" if failed is None else failed.status


@pytest.mark.parametrize("path", PRIVATE)
def test_without_a_credential_that_counts_nothing_is_done(world: World, path: str) -> None:
    secret, key = world.services.access.keys.create(world.users["admin"])
    world.services.access.keys.revoke(key)
    session, _ = world.services.access.sessions.begin(world.users["admin"], "127.0.0.1")
    forged = session[:-4] + ("aaaa" if session[-4:] != "aaaa" else "bbbb")
    for metadata in (
        (),
        (("authorization", "Bearer nonsense"),),
        (("authorization", "Basic !"),),
        (("authorization", f"Bearer {forged}"),),
        (("x-api-key", secret),),
        (("x-api-key", ""),),
        (("authorization", ""), ("x-api-key", "jdb_something")),
    ):
        failed = world.ask(path, metadata)
        assert failed is not None and (failed.status, failed.code) == ("UNAUTHENTICATED", "UNAUTHORIZED"), metadata


@pytest.mark.parametrize("path", [path for path in PRIVATE if OPERATIONS[RPC_OPERATIONS[path]].scope is Scope.DATABASE])
def test_a_database_that_may_not_be_seen_does_not_exist(world: World, path: str) -> None:
    stranger = world.key("stranger")
    hidden, missing = world.ask(path, stranger), world.ask(path, stranger, database="nowhere")
    assert hidden is not None and missing is not None
    assert hidden.code == missing.code == "UNKNOWN_DATABASE" and hidden.status == "NOT_FOUND"
    assert hidden.message.replace(world.database, "nowhere") == missing.message, "the answer gives nothing away"


@pytest.mark.parametrize("path", PRIVATE)
def test_too_little_is_refused_and_enough_is_not(world: World, path: str) -> None:
    operation = OPERATIONS[RPC_OPERATIONS[path]]
    refused: list[Metadata] = []
    enough: list[Metadata] = []
    match operation.right:
        case Right.READ if operation.scope is Scope.DATABASE:
            refused += [world.key("owner", "write"), world.key("owner", "delete")]
            enough += [world.key("reader"), world.key("reader", "read"), world.key("admin")]
        case Right.READ:
            refused += [world.key("owner", "delete")]
            enough += [world.key("onlooker"), world.key("owner", "read")]
        case Right.WRITE:
            refused += [world.key("reader"), world.key("writer", "read")]
            enough += [world.key("writer"), world.key("owner", "write"), world.key("admin")]
        case Right.DELETE:
            refused += [world.key("reader"), world.key("writer", "read")]
            enough += [world.key("writer", "delete"), world.key("owner", "write")]
        case Right.OWN:
            refused += [world.key("writer"), world.key("reader"), world.key("owner", "read", "write")]
        case Right.CREATE:
            refused += [world.key("reader"), world.key("onlooker"), world.key("owner", "read")]
            enough += [world.key("stranger")]
        case Right.ADMIN:
            refused += [world.key("owner"), world.key("admin", "read", "write", "delete")]
            enough += [world.key("admin"), world.key("admin", "admin")]
        case Right.SIGNED_IN:
            enough += [world.key("onlooker")]
        case Right.NONE:
            raise AssertionError(f"{path} is public")
    for metadata in refused:
        failed = world.ask(path, metadata)
        assert failed is not None and (failed.status, failed.code) == ("PERMISSION_DENIED", "FORBIDDEN"), failed
    for metadata in enough:
        assert status(world.ask(path, metadata)) not in ("PERMISSION_DENIED", "UNAUTHENTICATED", "NOT_FOUND")


def test_the_owner_may_drop_it_and_refusals_are_audited(world: World) -> None:
    mine = world.services.catalog.create("mine", 2, world.users["owner"]).id
    path = "/jadevectordb.v1.DatabaseService/DeleteDatabase"
    assert status(world.ask(path, world.key("writer"), mine)) == "NOT_FOUND"
    assert world.ask(path, world.key("owner"), mine) is None
    world.ask(path, world.key("writer"))
    events = world.services.access.audit.query(EventFilter(user_id=world.users["writer"]), limit=5, offset=0)
    assert ("permission_denied", False, "database.delete", "127.0.0.1") in [
        (e.kind, e.success, e.operation, e.address) for e in events
    ]


def test_a_key_revoked_while_a_stream_goes_on_ends_it(world: World) -> None:
    secret, key = world.services.access.keys.create(world.users["owner"])
    caller = Caller(world.channel, (("authorization", f"Bearer {secret}"),))
    method, _ = caller.method("VectorService/BulkUpsert", "stream_stream")
    sent: queue.Queue[Any] = queue.Queue()
    answers = method(iter(sent.get, None), timeout=60, metadata=caller.metadata)
    make = [
        caller.method(
            "VectorService/BulkUpsert",
            database=world.database,
            points=[{"id": f"s{number}", "vector": {"values": [1, number + 1]}}],
        )[1]
        for number in range(2)
    ]
    sent.put(make[0])
    assert next(answers).receipt.count == 1
    world.services.access.keys.revoke(key)
    sent.put(make[1])
    with pytest.raises(grpc.RpcError) as caught:
        next(answers)
    sent.put(None)
    failed = Failed(caught.value)
    assert (failed.code, failed.details["messages_applied"]) == ("UNAUTHORIZED", 1)
    owner = Caller(world.channel, world.key("owner"))
    assert list(owner("VectorService/VectorsExist", database=world.database, ids=["s0", "s1"]).exists) == [True, False]


def test_passwords_and_sessions_count_too(world: World) -> None:
    basic = base64.b64encode(f"owner:{PASSWORD}".encode()).decode()
    token, _, _ = world.services.access.sign_in("owner", PASSWORD, "127.0.0.1")
    for metadata in ((("authorization", f"Basic {basic}"),), (("authorization", f"Bearer {token}"),)):
        caller = Caller(world.channel, metadata)
        assert [d.name for d in caller("DatabaseService/ListDatabases").databases] == ["private"]


def test_health_needs_nothing_and_reflection_a_credential(world: World) -> None:
    for metadata in ((), (("authorization", "Bearer nonsense"),)):
        assert world.ask(f"/{HEALTH}/Check", metadata) is None
    for service in REFLECTION:
        assert status(world.ask(f"/{service}/ServerReflectionInfo")) == "UNAUTHENTICATED"
        assert world.ask(f"/{service}/ServerReflectionInfo", world.key("onlooker")) is None


def test_what_an_account_without_its_own_password_may_do(world: World) -> None:
    world.services.access.accounts.create("fresh", PASSWORD, must_change_password=True)
    token, _, _ = world.services.access.sign_in("fresh", PASSWORD, "127.0.0.1")
    failed = world.ask("/jadevectordb.v1.DatabaseService/ListDatabases", (("authorization", f"Bearer {token}"),))
    assert failed is not None and (failed.status, failed.code) == ("PERMISSION_DENIED", "PASSWORD_CHANGE_REQUIRED")
