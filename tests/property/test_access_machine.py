"""Accounts, sessions and keys against a plain model: whatever order people do things in, a credential works exactly while it should.

After every step a credential that was ended, expired or whose account is gone or inactive must be refused, and every other one
must act as its account, with its roles and permissions as they are now.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule
from tests.access_world import HOME, World, basic

from jadevectordb.gateway.access.principals import Principal
from jadevectordb.model.errors import ErrorCode, JadeError

DAY_S = 86_400
MEMORY = (
    "/dev/shm" if Path("/dev/shm").is_dir() else None
)  # a step writes several records, and none must survive the test
NAMES = st.sampled_from(["first", "Second", "ann", "Ann", "bob", "ann@x.y"])
EMAILS = st.sampled_from(["", "", "ann@x.y", "b@x.y"])
ROLES = st.sampled_from([("user",), ("developer", "user"), ("admin",), ("viewer", "admin")])
PASSWORDS = st.sampled_from(["password one", "password two", "password three"])
PERMISSIONS = st.sampled_from([(), ("read",), ("write", "delete")])


@dataclass
class Person:
    """What the model knows of an account."""

    name: str
    email: str
    roles: tuple[str, ...]
    password: str
    is_active: bool = True
    must_change: bool = False

    @property
    def names(self) -> set[str]:
        return {self.name.lower(), self.email.lower()} - {""}


@dataclass
class Credential:
    user_id: str
    kind: str
    secret: str
    expires_ms: float
    permissions: tuple[str, ...] = ()
    ended: bool = False
    id: str = ""


@dataclass
class Model:
    people: dict[str, Person] = field(default_factory=dict)
    credentials: list[Credential] = field(default_factory=list)

    def admins(self, but: str = "") -> list[str]:
        return [u for u, p in self.people.items() if p.is_active and "admin" in p.roles and u != but]

    def holder(self, name: str) -> str | None:
        return next((u for u, p in self.people.items() if name.lower() in p.names), None)

    def end_sessions(self, user_id: str, but: str = "") -> None:
        for credential in self.credentials:
            if credential.user_id == user_id and credential.kind == "session" and credential.id != but:
                credential.ended = True


class AccessMachine(RuleBasedStateMachine):
    people = Bundle("people")
    credentials = Bundle("credentials")

    @initialize(target=people, roles=st.lists(ROLES, min_size=2, max_size=2))
    def start(self, roles: list[tuple[str, ...]]) -> object:
        self.folder = Path(tempfile.mkdtemp(dir=MEMORY))
        self.world = World(self.folder)
        self.model = Model()
        made = [
            self.create(name, "", role, "password one") for name, role in zip(("first", "second"), roles, strict=True)
        ]
        return multiple(*made)

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.close()
            shutil.rmtree(self.folder)

    def by(self, user_id: str) -> Principal:
        """Somebody else who is an admin."""
        return Principal("user_someone", "someone", ("admin",), None, "session", "sess_someone")

    @rule(target=people, name=NAMES, email=EMAILS, roles=ROLES, password=PASSWORDS)
    def create_person(self, name: str, email: str, roles: tuple[str, ...], password: str) -> object:
        return self.create(name, email, roles, password)

    def create(self, name: str, email: str, roles: tuple[str, ...], password: str) -> object:
        person = Person(name, email, roles, password)
        is_taken = any(person.names & other.names for other in self.model.people.values())
        try:
            user_id = self.world.user(name, *roles, password=password, email=email)
        except JadeError as error:
            assert is_taken and error.code is ErrorCode.ALREADY_EXISTS
            return multiple()
        assert not is_taken
        self.model.people[user_id] = person
        return user_id

    @rule(
        user_id=people,
        roles=ROLES | st.none(),
        is_active=st.booleans() | st.none(),
        email=EMAILS | st.none(),
        name=NAMES | st.none(),
    )
    def update(
        self, user_id: str, roles: tuple[str, ...] | None, is_active: bool | None, email: str | None, name: str | None
    ) -> None:
        person = self.model.people.get(user_id)
        try:
            self.world.access.accounts.update(
                user_id, by=self.by(user_id), roles=roles, is_active=is_active, email=email, username=name
            )
        except JadeError as error:
            if person is None:
                assert error.code is ErrorCode.NOT_FOUND
                return
            wanted = {(name or person.name).lower(), (person.email if email is None else email).lower()} - {""}
            if error.code is ErrorCode.ALREADY_EXISTS:
                assert any(wanted & p.names for u, p in self.model.people.items() if u != user_id)
            else:
                assert error.code is ErrorCode.CONFLICT
                assert person.is_active and "admin" in person.roles and not self.model.admins(but=user_id)
                assert is_active is False or (roles is not None and "admin" not in roles)
            return
        assert person is not None
        had_admins = bool(self.model.admins())
        if is_active is False and person.is_active:
            self.model.end_sessions(user_id)
        person.roles = person.roles if roles is None else roles
        person.is_active = person.is_active if is_active is None else is_active
        person.email = person.email if email is None else email
        person.name = name or person.name
        assert self.model.admins() or not had_admins, "the last admin was let go"

    @rule(user_id=people)
    def deactivate(self, user_id: str) -> None:
        self.change_state(user_id, False)

    @rule(user_id=people)
    def activate(self, user_id: str) -> None:
        self.change_state(user_id, True)

    def change_state(self, user_id: str, is_active: bool) -> None:
        person = self.model.people.get(user_id)
        try:
            self.world.access.accounts.update(user_id, is_active=is_active)
        except JadeError as error:
            assert error.code is (ErrorCode.NOT_FOUND if person is None else ErrorCode.CONFLICT)
            assert person is None or self.model.admins() == [user_id]
            return
        assert person is not None and (is_active or self.model.admins() != [user_id])
        if not is_active and person.is_active:
            self.model.end_sessions(user_id)
        person.is_active = is_active

    @rule(user_id=people)
    def delete(self, user_id: str) -> None:
        person = self.model.people.get(user_id)
        try:
            self.world.access.accounts.delete(user_id, by=self.by(user_id))
        except JadeError as error:
            is_last = (
                person is not None
                and person.is_active
                and "admin" in person.roles
                and not self.model.admins(but=user_id)
            )
            assert error.code is (ErrorCode.CONFLICT if is_last else ErrorCode.NOT_FOUND)
            assert is_last or person is None
            return
        assert person is not None and self.model.admins() != [user_id]
        del self.model.people[user_id]
        for credential in self.model.credentials:
            credential.ended |= credential.user_id == user_id

    @rule(target=credentials, name=NAMES, password=PASSWORDS)
    def sign_in(self, name: str, password: str) -> object:
        user_id = self.model.holder(name)
        person = self.model.people.get(user_id or "")
        is_right = person is not None and person.is_active and person.password == password
        try:
            token, session, account = self.world.access.sign_in(name, password, HOME)
        except JadeError as error:
            assert error.code in (ErrorCode.UNAUTHORIZED, ErrorCode.RATE_LIMITED)
            assert not is_right or error.code is ErrorCode.RATE_LIMITED
            self.world.clock.move(300)  # the limits are not what is tested here
            return multiple()
        assert is_right and user_id is not None and account.user_id == user_id
        made = Credential(user_id, "session", token, self.world.clock.ms + DAY_S * 1000, id=session.session_id)
        self.model.credentials.append(made)
        return made

    @rule(target=credentials, user_id=people, permissions=PERMISSIONS, days=st.sampled_from([0, 1, 3]))
    def create_key(self, user_id: str, permissions: tuple[str, ...], days: int) -> object:
        if user_id not in self.model.people:
            return multiple()
        secret, key = self.world.access.keys.create(user_id, permissions=permissions, valid_days=days)
        expires = self.world.clock.ms + days * DAY_S * 1000 if days else float("inf")
        made = Credential(user_id, "key", secret, expires, permissions, id=key.key_id)
        self.model.credentials.append(made)
        return made

    @rule(credential=consumes(credentials))
    def end(self, credential: Credential) -> None:
        access = self.world.access
        if credential.kind == "session":
            access.sessions.end(credential.user_id, credential.id)
        else:
            key = access.keys.find(credential.id)
            assert (key is None) == (credential.user_id not in self.model.people)
            if key is not None:
                access.keys.revoke(key)
        credential.ended = True

    @rule(user_id=people, old=PASSWORDS, new=PASSWORDS)
    def change_password(self, user_id: str, old: str, new: str) -> None:
        person = self.model.people.get(user_id)
        try:
            self.world.access.accounts.change_password(user_id, old, new, by=self.by(user_id))
        except JadeError as error:
            expected = (
                ErrorCode.NOT_FOUND if person is None
                else ErrorCode.UNAUTHORIZED if person.password != old
                else ErrorCode.INVALID_ARGUMENT
            )  # fmt: skip
            assert error.code is expected and (person is None or person.password != old or old == new)
            return
        assert person is not None and person.password == old != new
        person.password, person.must_change = new, False
        self.model.end_sessions(user_id)

    @rule(user_id=people, new=PASSWORDS, must_change=st.booleans())
    def reset_password(self, user_id: str, new: str, must_change: bool) -> None:
        if user_id not in self.model.people:
            return
        self.world.access.accounts.reset_password(user_id, new, must_change=must_change)
        person = self.model.people[user_id]
        person.password, person.must_change = new, must_change
        self.model.end_sessions(user_id)

    @rule(seconds=st.sampled_from([1, 3600, DAY_S // 2, DAY_S]))
    def wait(self, seconds: int) -> None:
        self.world.clock.move(seconds)

    @rule(maintain=st.booleans())
    def restart(self, maintain: bool) -> None:
        if maintain:
            self.world.access.maintain()
        self.world.restart()

    @rule(name=NAMES, password=PASSWORDS)
    def password_as_credential(self, name: str, password: str) -> None:
        person = self.model.people.get(self.model.holder(name) or "")
        is_right = person is not None and person.is_active and person.password == password
        for _ in range(2):
            try:
                found = self.world.access.gatekeeper.authenticate(basic(name, password), None, HOME)
            except JadeError as error:
                assert error.code is ErrorCode.RATE_LIMITED or not is_right
            else:
                assert is_right and person is not None and found.roles == person.roles
        self.world.clock.move(300)

    @invariant()
    def each_credential_works_exactly_while_it_should(self) -> None:
        if not hasattr(self, "model"):
            return
        for credential in self.model.credentials:
            person = self.model.people.get(credential.user_id)
            is_alive = not credential.ended and self.world.clock.ms < credential.expires_ms
            expected = is_alive and person is not None and person.is_active
            assert self.world.works(credential.secret) == expected, credential
            if expected:
                assert person is not None
                found = self.world.who(credential.secret)
                assert (found.user_id, found.username, found.roles) == (credential.user_id, person.name, person.roles)
                assert (found.kind, found.credential_id) == (credential.kind, credential.id)
                assert found.must_change_password == person.must_change
                assert set(found.permissions or ()) == set(credential.permissions)

    @invariant()
    def accounts_are_those_of_the_model(self) -> None:
        if not hasattr(self, "model"):
            return
        accounts = self.world.access.accounts
        found = {
            a.user_id: (a.username, a.email, a.roles, a.is_active, a.must_change_password) for a in accounts.list()
        }
        assert found == {
            u: (p.name, p.email, p.roles, p.is_active, p.must_change) for u, p in self.model.people.items()
        }  # fmt: skip
        for name in ("first", "second", "ann", "bob", "ann@x.y", "b@x.y"):
            account = accounts.find(name)
            assert (account.user_id if account is not None else None) == self.model.holder(name)


AccessMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
TestAccessMachine = AccessMachine.TestCase
