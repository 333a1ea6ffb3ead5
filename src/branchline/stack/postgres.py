"""PostgreSQL: three small clusters, so that nothing of production is a neighbour of a branch."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import psycopg
from psycopg import sql

from branchline.domain.config import Secret
from branchline.domain.errors import PlatformBroke
from branchline.layout import Layout
from branchline.stack import binaries, files
from branchline.stack.part import NotReady, Part, check_port, plain_environment
from branchline.stack.process import Command, Identity, User
from branchline.store import register_schema

SUPERUSER = "postgres"
PLATFORM_ROLE = PLATFORM_DATABASE = "branchline"


class Cluster(StrEnum):
    """The clusters: one for our own tables, one for the environments of each tier."""

    PLATFORM = "platform"
    NONPROD = "nonprod"
    PRODUCTION = "production"


class Postgres(Part):
    """One cluster. Those of the tiers also listen where containers reach them; each role enters its own database."""

    stop_signal = signal.SIGINT  # end sessions now and write everything down
    stop_limit = 30.0

    def __init__(self, layout: Layout, cluster: Cluster, user: User | None, connections: int = 200) -> None:
        self.name = f"postgres-{cluster}"
        self.needs = () if cluster is Cluster.PLATFORM else ("bridge",)
        self.port: int = getattr(layout.ports, f"postgres_{cluster}")
        self._layout = layout
        self._cluster = cluster
        self._connections = connections
        self._user = user
        self._folder = layout.home / "postgres" / cluster
        self._gateway = None if cluster is Cluster.PLATFORM else str(layout.gateway)

    @property
    def endpoint(self) -> str:
        return f"127.0.0.1:{self.port}"

    def admin_url(self, database: str = "postgres") -> Secret:
        """How the superuser connects."""
        password = self._layout.key(f"{self.name}.password").reveal()
        return Secret(f"postgresql://{SUPERUSER}:{password}@{self.endpoint}/{database}")

    @contextmanager
    def connection(self, database: str = "postgres") -> Iterator[psycopg.Connection]:
        """A session of the superuser, each statement on its own; raises NotReady where there is none to be had."""
        try:
            with psycopg.connect(self.admin_url(database).reveal(), autocommit=True, connect_timeout=2) as connection:
                yield connection
        except psycopg.OperationalError as error:
            raise NotReady(" ".join(str(error).split())[:200]) from None

    def prepare(self) -> None:
        programs = binaries.postgres(self._layout.home)
        if not self._folder.exists():
            self._create(programs)
        self._forget_the_dead()
        files.write(self._folder / "postgresql.conf", self._configuration(), user=self._user)
        files.write(self._folder / "pg_hba.conf", self._access(), user=self._user)

    def command(self) -> Command:
        return Command(
            (str(binaries.postgres(self._layout.home) / "postgres"), "-D", str(self._folder)),
            folder=self._folder,
            user=self._user,
            environment=plain_environment(),
        )

    def check(self) -> None:
        if self._gateway:
            check_port(self._gateway, self.port)
        with self.connection() as connection:
            connection.execute("SELECT 1")

    def settle(self) -> None:
        with self.connection() as connection:
            connection.execute("REVOKE ALL ON DATABASE postgres, template1 FROM PUBLIC")
            if self._cluster is Cluster.PLATFORM:
                self._make_room_for_the_platform(connection)

    def _make_room_for_the_platform(self, connection: psycopg.Connection) -> None:
        role, database = sql.Identifier(PLATFORM_ROLE), sql.Identifier(PLATFORM_DATABASE)
        password = sql.Literal(self._layout.key("postgres-platform-app.password").reveal())
        if not connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (PLATFORM_ROLE,)).rowcount:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password))
        if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (PLATFORM_DATABASE,)).rowcount:
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, role))
            connection.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
        # The register is its keeper's, made before the platform's role has a first look.
        with self.connection(PLATFORM_DATABASE) as inside, inside.transaction():
            register_schema.entrust(inside, PLATFORM_ROLE)

    def _create(self, programs: Path) -> None:
        """Make the cluster beside its place and move it there when it is whole."""
        partial = self._folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        files.folder(partial, user=self._user, mode=0o700)
        password = self._folder.with_suffix(".password")
        files.write(password, self._layout.key(f"{self.name}.password").reveal(), user=self._user)
        try:
            made = subprocess.run(
                [
                    str(programs / "initdb"),
                    *("--pgdata", str(partial), "--username", SUPERUSER, "--pwfile", str(password)),
                    *("--auth", "scram-sha-256", "--data-checksums", "--encoding", "UTF8"),
                    # Its own C.UTF-8, not the system's: an upgrade of the machine cannot change the order of an index.
                    *("--locale", "C", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
                    *("--sync-method", "syncfs"),
                ],
                user=self._user.uid if self._user else None,
                group=self._user.gid if self._user else None,
                extra_groups=[] if self._user else None,
                env=plain_environment(),
                cwd=self._folder.parent,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            password.unlink()
        if made.returncode:
            raise PlatformBroke(
                f"The cluster {self._cluster} could not be made.",
                code="cluster_not_made",
                hint=(made.stderr.strip().splitlines() or [f"initdb ended with {made.returncode}"])[-1],
            )
        partial.rename(self._folder)

    def _configuration(self) -> str:
        listen = "127.0.0.1" + (f",{self._gateway}" if self._gateway else "")
        return "\n".join(
            [
                "# Written by `branchline up` at every start. Your own settings belong into ALTER SYSTEM.",
                f"listen_addresses = '{listen}'",
                f"port = {self.port}",
                "unix_socket_directories = ''",
                f"max_connections = {self._connections}",
                "password_encryption = 'scram-sha-256'",
                f"shared_buffers = {12 if self._cluster is Cluster.PLATFORM else 32}MB",
                "dynamic_shared_memory_type = posix",
                "io_method = sync",
                # The platform's own statements are too short for it.
                *(["jit = off", "max_logical_replication_workers = 0"] if self._cluster is Cluster.PLATFORM else []),
                "min_wal_size = 32MB",
                "log_line_prefix = '%m [%p] %q%u@%d '",
                "log_checkpoints = off",
                # Statements carry passwords of new roles; the log must not.
                "log_min_error_statement = panic",
                "log_timezone = 'UTC'",
                "timezone = 'UTC'",
                "",
            ]
        )

    def _access(self) -> str:
        rules = [f"host all {SUPERUSER} 127.0.0.1/32 scram-sha-256", f"host all {SUPERUSER} all reject"]
        if self._cluster is Cluster.PLATFORM:
            rules.append(f"host {PLATFORM_DATABASE} {PLATFORM_ROLE} 127.0.0.1/32 scram-sha-256")
        else:
            rules.append("host sameuser all 127.0.0.1/32 scram-sha-256")
            rules.append(f"host sameuser all {self._layout.subnet} scram-sha-256")
        return "\n".join(["# Written by `branchline up` at every start.", *rules, ""])

    def _forget_the_dead(self) -> None:
        """Remove the pid file of a server that is gone: after a reboot its number may be another process of ours."""
        file = self._folder / "postmaster.pid"
        try:
            pid = int(file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        try:
            at_work = Identity.of(pid) is not None and Path(f"/proc/{pid}/cwd").readlink() == self._folder.resolve()
        except OSError:
            at_work = False
        if not at_work:
            file.unlink(missing_ok=True)
