"""The register with a real PostgreSQL and a real OpenBao: seals, rotation of the key, exports, and who may do what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from branchline.adapters.identity import Signer
from branchline.adapters.vault_notary import VaultNotary
from branchline.domain.access import EVERYWHERE, Actor, Role
from branchline.domain.audit import AuditEvent, Kind
from branchline.domain.chain import Head
from branchline.domain.errors import BadInput, NotFound, PlatformBroke, Refused
from branchline.endpoints import Endpoints
from branchline.layout import Layout
from branchline.operations.gate import Gate
from branchline.operations.register import Audit
from branchline.operations.sealing import Sealing
from branchline.register_check import check
from branchline.settings import Settings
from branchline.signatures import from_pem
from branchline.stack import first_start, register_state
from branchline.stack.key_rotation import rotate
from branchline.stack.openbao import OpenBao
from branchline.stack.part import running
from branchline.stack.postgres import PLATFORM_DATABASE, Cluster, Postgres
from branchline.store.database import SqlStore, connect
from branchline.store.schema import exclusively, migrate
from branchline.wire_audit import Verification
from tests.conftest import discard, new_layout
from tests.openbao import Caller, operator

pytestmark = pytest.mark.stack

ADMIN = Actor("ada", "token ada", {EVERYWHERE: Role.ADMIN})
DEVELOPER = Actor("dan", "token dan", {"shop": Role.DEVELOPER})


class World:
    """A platform's own servers, and what its server does with them."""

    def __init__(self, layout: Layout, postgres: Postgres, openbao: OpenBao) -> None:
        self.layout = layout
        self.postgres = postgres
        self.openbao = openbao
        self.settings = Settings(home=layout.home)
        self.database = Endpoints(self.settings, layout).platform_database
        engine = connect(self.database)
        with exclusively(engine):
            migrate(engine)
        self.store = SqlStore(engine)
        self.notary = VaultNotary(openbao.endpoint, partial(layout.key, "server.pem"))
        self.audit = Audit(self.store, Gate(self.store), self.notary)

    def sealing(self, every: float = 60.0) -> Sealing:
        return Sealing(self.store, self.notary, every)

    def add(self, kind: Kind = Kind.STAGE_ENDED, count: int = 3) -> None:
        for _ in range(count):
            with self.store.transaction() as records:
                records.register.add(AuditEvent(kind, "ada", "shop", "develop", 3, {"text": "ü\u2028"}))

    def verify(self) -> Verification:
        *_, last = self.audit.verify(ADMIN)
        assert last.done
        return last.done

    def export(self, path: Path, after: int = 0) -> Path:
        path.write_text("".join(self.audit.export(ADMIN, after)), encoding="utf-8")
        return path


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    layout = new_layout()
    user = first_start.account()
    with ExitStack() as servers:
        servers.callback(discard, layout)
        postgres, openbao = Postgres(layout, Cluster.PLATFORM, user), OpenBao(layout, user)
        servers.enter_context(running(postgres, layout.log))
        servers.enter_context(running(openbao, layout.log))
        made = World(layout, postgres, openbao)
        servers.callback(made.store.rest)
        yield made


def test_the_head_is_sealed_and_noted(world: World) -> None:
    world.add()
    seal = world.sealing().seal()
    assert seal
    found = world.verify()
    assert (found.faults, found.sealed, found.head) == ([], seal.seq, seal.seq)
    assert found.hash == seal.hash.hex()
    assert world.notary.noted() == Head(seal.seq, seal.hash)
    world.notary.note(Head(seal.seq - 1, bytes(32)))
    assert world.notary.noted() == Head(seal.seq, seal.hash)


def test_old_signatures_stay_good_when_the_key_is_rotated(world: World, tmp_path: Path) -> None:
    world.add()
    before = world.sealing().seal()
    said: list[str] = []
    rotate(world.settings, "register", said.append)
    world.add()
    after = world.sealing().seal()
    assert before
    assert after
    assert after.key_version == before.key_version + 1
    assert f"version {after.key_version} " in said[0]
    assert world.verify().faults == []
    keys = world.audit.keys(DEVELOPER)
    assert [key.version for key in keys][-2:] == [before.key_version, after.key_version]
    path = world.export(tmp_path / "register.jsonl")
    pem = "".join(f"# version {key.version}\n{key.public_key}" for key in keys)
    assert check(path, from_pem(pem)).faults == []
    newest = check(path, from_pem(keys[-1].public_key))
    assert {str(fault.what) for fault in newest.faults} == {"forged"}
    assert before.seq in {fault.row for fault in newest.faults}
    assert after.seq not in {fault.row for fault in newest.faults}


def test_a_part_of_it_can_be_exported(world: World, tmp_path: Path) -> None:
    world.add(count=5)
    seal = world.sealing().seal()
    assert seal
    done = check(world.export(tmp_path / "x.jsonl", seal.seq - 2), None)
    assert (done.faults, done.after, done.check.rows, done.check.sealed) == ([], seal.seq - 2, 2, seal.seq)
    with pytest.raises(NotFound):
        world.audit.export(ADMIN, seal.seq + 1)


def test_a_deployments_end_is_sealed_at_once_and_the_rest_in_time(world: World) -> None:
    world.sealing().seal()
    sealing = world.sealing(every=3600)

    def sealed() -> int:
        with world.store.transaction() as records:
            newest = records.register.newest_seal()
            assert newest
            return newest.seq

    world.add()
    sealing.look()
    sealing.look()
    before = sealed()
    world.add()
    sealing.look()
    assert sealed() == before
    world.add(Kind.DEPLOYMENT_FINISHED, 1)
    sealing.look()
    assert sealed() == before + 4
    world.add()
    world.sealing(every=3600).look()  # another server, which has not sealed anything yet
    assert sealed() == before + 7


def test_nothing_is_lost_while_openbao_is_away(world: World) -> None:
    away = VaultNotary("http://127.0.0.1:1", partial(world.layout.key, "server.pem"))
    world.add(Kind.DEPLOYMENT_FINISHED, 1)
    sealing = Sealing(world.store, away, 60)
    with pytest.raises(PlatformBroke) as broke:
        sealing.look()
    assert broke.value.code == "config_unreachable"
    sealing.look()  # not again before half a minute has passed
    world.sealing().look()
    assert world.verify().sealed == world.verify().head


def test_only_who_may_operate_the_platform_sees_all_of_it(world: World) -> None:
    for refused in (lambda: world.audit.verify(DEVELOPER), lambda: world.audit.export(DEVELOPER, 0)):
        with pytest.raises(Refused):
            refused()


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "register-signer/keys/head/rotate", {}),
        ("DELETE", "register-signer/keys/head", {}),
        ("POST", "register-signer/keys/head/config", {"deletion_allowed": True}),
        ("POST", "register-signer/keys/head/config", {"exportable": True}),
        ("GET", "register-signer/export/signing-key/head", {}),
        ("GET", "register-signer/backup/head", {}),
        ("POST", "register-signer/keys/other", {"type": "ed25519"}),
        ("DELETE", "register/data/head", {}),
        ("DELETE", "register/metadata/head", {}),
        ("POST", "register/destroy/head", {"versions": [1]}),
        ("POST", "register/delete/head", {"versions": [1]}),
        ("POST", "register/data/other", {"data": {}}),
        ("POST", "register/config", {"cas_required": False}),
    ],
)
def test_the_servers_login_may_sign_and_no_more(world: World, method: str, path: str, body: dict[str, object]) -> None:

    token = Signer(partial(world.layout.key, "server.pem")).server()
    login = Caller(world.openbao.endpoint).log_in("jwt-server", "config-writer", token).json()
    server = Caller(world.openbao.endpoint, login["auth"]["client_token"])
    assert server.ask(method, path, **body).status_code == 403


def test_the_key_never_leaves(world: World) -> None:
    """Not even for whoever may do everything there."""
    caller = operator(world.openbao.endpoint, world.layout)
    told = caller.ask("GET", "register-signer/keys/head").json()["data"]
    assert (told["type"], told["exportable"], told["allow_plaintext_backup"], told["deletion_allowed"]) == (
        "ed25519",
        False,
        False,
        False,
    )
    assert caller.ask("GET", "register-signer/export/signing-key/head").status_code >= 400
    assert caller.ask("DELETE", "register-signer/keys/head").status_code >= 400


def test_a_head_cannot_be_written_over_by_chance(world: World) -> None:
    answer = operator(world.openbao.endpoint, world.layout).ask(
        "POST", "register/data/head", data={"seq": 1, "hash": ""}
    )
    assert answer.status_code == 400
    assert "check-and-set" in answer.text


def test_a_config_store_of_ones_own_rotates_it_itself(world: World) -> None:
    settings = Settings(home=world.layout.home, vault_url="https://vault.example.com:8200")
    with pytest.raises(BadInput) as refused:
        rotate(settings, "register", lambda _: None)
    assert refused.value.code == "vault_is_external"
    assert "register-signer/keys/head/rotate" in refused.value.hint


def test_the_doctor_looks_at_it(world: World) -> None:
    world.add()
    world.sealing().seal()
    assert [(one.text, one.hint) for one in register_state.look(world.database, 60)] == [
        ("its tables belong to branchline_register; the platform can only add to them", ""),
        ("every row is sealed", ""),
    ]
    world.add(count=2)
    assert [one.text for one in register_state.look(world.database, 60)][1] == "sealed but for the newest (2 rows)"
    with world.postgres.connection(PLATFORM_DATABASE) as superuser:
        superuser.execute("UPDATE register.event SET at = at - interval '7 minutes'")
    late = [*register_state.look(world.database, 60)][1]
    assert late.text == "2 rows wait for a seal, the oldest for 7 min"
    assert late.hint
    with world.postgres.connection(PLATFORM_DATABASE) as superuser:
        superuser.execute("UPDATE register.event SET at = at + interval '7 minutes'")
    of_superuser = next(register_state.look(world.postgres.admin_url(PLATFORM_DATABASE), 60))
    assert "superuser" in of_superuser.text
    assert of_superuser.hint
    nobody = world.database.reveal().replace(f":{world.postgres.port}/", ":1/")
    assert [*register_state.look(type(world.database)(nobody), 60)] == []
