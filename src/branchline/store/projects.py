"""Projects, their environments and their releases, in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from branchline.domain.deployment import State
from branchline.domain.environment import Destination, Environment, Inherits, Tier
from branchline.domain.errors import Conflict, NotFound
from branchline.domain.manifest import Manifest
from branchline.domain.project import Project
from branchline.domain.release import Release
from branchline.domain.retention import Use
from branchline.store import tables as t

_SLOT_LOCK = 0x736C_6F74  # "slot": two new environments must not choose the same one


class SqlProjects:
    """Port `Projects`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def add(self, name: str, repository: str) -> Project:
        """Raises Conflict (`project_exists`)."""
        new = insert(t.project).values(name=name, repository=repository).on_conflict_do_nothing()
        added = self._db.execute(new.returning(t.project.c.id)).scalar()
        if added is None:
            raise Conflict(
                f"There is a project {name} already.",
                code="project_exists",
                hint="Choose another name, or look at it with `branchline project show`.",
            )
        return Project(added, name, repository)

    def get(self, name: str) -> Project:
        """Raises NotFound (`unknown_project`)."""
        row = self._db.execute(sa.select(t.project).where(t.project.c.name == name)).first()
        if row is None:
            raise NotFound(
                f"There is no project {name[:60]!r}.",
                code="unknown_project",
                hint="`branchline project list` shows all; `branchline project add` adds one.",
            )
        return Project(row.id, row.name, row.repository)

    def all(self) -> list[Project]:
        """By name."""
        rows = self._db.execute(sa.select(t.project).order_by(t.project.c.name))
        return [Project(row.id, row.name, row.repository) for row in rows]


_ENVIRONMENTS = sa.select(t.environment, t.project.c.name.label("project")).join_from(t.environment, t.project)


def _environment(row: sa.Row[tuple[object, ...]]) -> Environment:
    return Environment(
        row.id,
        row.project,
        row.name,
        Tier(row.tier),
        row.slot,
        row.live_deployment_id,
        row.trouble,
        Inherits(row.inherits),
    )


class SqlEnvironments:
    """Port `Environments`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def ensure(self, project: Project, destination: Destination) -> Environment:
        """The environment, made where it is new, with the lowest free slot (from 1); it inherits as is said now."""
        mine = _ENVIRONMENTS.where(t.environment.c.project_id == project.id, t.environment.c.name == destination.name)
        row = self._db.execute(mine).first()
        if row is None:
            self._db.execute(sa.select(sa.func.pg_advisory_xact_lock(_SLOT_LOCK)))
            taken = set(self._db.execute(sa.select(t.environment.c.slot)).scalars())
            slot = next(number for number in range(1, len(taken) + 2) if number not in taken)
            new = insert(t.environment).values(
                project_id=project.id,
                name=destination.name,
                tier=destination.tier,
                slot=slot,
                inherits=destination.inherits,
            )
            self._db.execute(new.on_conflict_do_nothing(index_elements=["project_id", "name"]))
            row = self._db.execute(mine).one()
        if row.inherits != destination.inherits:
            change = t.environment.update().where(t.environment.c.id == row.id)
            self._db.execute(change.values(inherits=destination.inherits))
            row = self._db.execute(mine).one()
        return _environment(row)

    def get(self, project: str, name: str) -> Environment:
        """Raises NotFound (`unknown_environment`)."""
        query = _ENVIRONMENTS.where(t.project.c.name == project, t.environment.c.name == name)
        row = self._db.execute(query).first()
        if row is None:
            raise NotFound(
                f"{project} has no environment {name[:60]!r}.",
                code="unknown_environment",
                hint=f"`branchline env list {project}` shows those it has; a first deployment makes one.",
            )
        return _environment(row)

    def lock(self, environment: Environment) -> None:
        """Until the transaction ends nobody asks for a deployment there, and nothing else becomes live."""
        self._db.execute(sa.select(t.environment.c.id).where(t.environment.c.id == environment.id).with_for_update())

    def of(self, project: str) -> list[Environment]:
        """By name."""
        query = _ENVIRONMENTS.where(t.project.c.name == project).order_by(t.environment.c.name)
        return [_environment(row) for row in self._db.execute(query)]

    def of_tier(self, tier: Tier) -> list[Environment]:
        """Those of all projects, by project and name."""
        query = _ENVIRONMENTS.where(t.environment.c.tier == tier).order_by(t.project.c.name, t.environment.c.name)
        return [_environment(row) for row in self._db.execute(query)]

    def claim_hostnames(self, environment: Environment, hostnames: Sequence[str]) -> None:
        """Give these hostnames, and no others, to the environment; raises Conflict (`hostname_taken`)."""
        if self.hostnames(environment) == sorted(set(hostnames)):
            return  # as nearly always; and nobody else can take what is ours
        mine = t.hostname.c.environment_id == environment.id
        self._db.execute(t.hostname.delete().where(mine, t.hostname.c.hostname.not_in(hostnames)))
        for name in sorted(hostnames):  # always in the same order, so that two claims cannot lock each other out
            new = insert(t.hostname).values(hostname=name, environment_id=environment.id)
            self._db.execute(new.on_conflict_do_nothing())
            owner = self._db.execute(
                _ENVIRONMENTS.join(t.hostname, t.hostname.c.environment_id == t.environment.c.id).where(
                    t.hostname.c.hostname == name
                )
            ).one()
            if owner.id != environment.id:
                raise Conflict(
                    f"The hostname {name} belongs to {owner.project}, environment {owner.name}.",
                    code="hostname_taken",
                    hint="Take it out of one of the two manifests; the other keeps it.",
                )

    def hostnames(self, environment: Environment) -> list[str]:
        """By name."""
        query = sa.select(t.hostname.c.hostname).where(t.hostname.c.environment_id == environment.id)
        return list(self._db.execute(query.order_by(t.hostname.c.hostname)).scalars())

    def some(self, environments: Collection[int]) -> dict[int, tuple[Environment, str | None]]:
        """These, by id, each with its first hostname."""
        first = (
            sa.select(sa.func.min(t.hostname.c.hostname))
            .where(t.hostname.c.environment_id == t.environment.c.id)
            .correlate(t.environment)
        )
        query = _ENVIRONMENTS.add_columns(first.scalar_subquery().label("first")).where(
            t.environment.c.id.in_(environments)
        )
        return {row.id: (_environment(row), row.first) for row in self._db.execute(query)}

    def owners(self, hostnames: Sequence[str]) -> dict[str, int]:
        """The ids of the environments that have these hostnames; one that nobody has is left out."""
        query = sa.select(t.hostname).where(t.hostname.c.hostname.in_(hostnames))
        return {row.hostname: row.environment_id for row in self._db.execute(query)}

    def set_live(self, environment: Environment, deployment: int | None) -> None:
        """Note what the environment's traffic goes to; its trouble ends with that."""
        change = t.environment.update().where(t.environment.c.id == environment.id)
        self._db.execute(change.values(live_deployment_id=deployment, trouble=""))

    def note_trouble(self, environment: Environment, trouble: str) -> None:
        """Say what is missing of what is live; empty where nothing is any more."""
        change = t.environment.update().where(t.environment.c.id == environment.id)
        self._db.execute(change.values(trouble=trouble))


_RELEASES = sa.select(t.release, t.project.c.name.label("project")).join_from(t.release, t.project)


def _this(project: Project, build_key: str) -> sa.ColumnElement[bool]:
    return (t.release.c.project_id == project.id) & (t.release.c.build_key == build_key)


class SqlReleases:
    """Port `Releases`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._db = connection

    def _one(self, query: sa.Select[tuple[Any, ...]]) -> Release | None:
        row = self._db.execute(query).first()
        if row is None:
            return None
        manifest = Manifest.model_validate(row.manifest)
        return Release(row.id, row.project, row.number, row.commit, row.image, manifest)

    def find(self, project: Project, build_key: str) -> Release | None:
        """The release that was built from exactly these inputs and still has its image, which it keeps meanwhile."""
        query = _RELEASES.where(_this(project, build_key), t.release.c.image_removed_at.is_(None))
        return self._one(query.with_for_update(read=True, of=t.release))

    def add(self, project: Project, commit: str, build_key: str, image: str, manifest: Manifest) -> Release:
        """Record a release; where one of this key exists, that one is returned, with this image if it has lost its."""
        # The project's row is the lock under which its releases are numbered.
        self._db.execute(sa.select(t.project.c.id).where(t.project.c.id == project.id).with_for_update())
        if (known := self.find(project, build_key)) is not None:
            return known
        again = t.release.update().where(_this(project, build_key)).values(image=image, image_removed_at=None)
        if (revived := self._db.execute(again.returning(t.release.c.id)).scalar()) is not None:
            return self.get(revived)
        newest = sa.select(sa.func.coalesce(sa.func.max(t.release.c.number), 0))
        number = self._db.execute(newest.where(t.release.c.project_id == project.id)).scalar_one() + 1
        new = t.release.insert().values(
            project_id=project.id,
            number=number,
            commit=commit,
            build_key=build_key,
            image=image,
            manifest=manifest.model_dump(mode="json"),
        )
        added = self._db.execute(new.returning(t.release.c.id)).scalar_one()
        return Release(added, project.name, number, commit, image, manifest)

    def get(self, release: int) -> Release:
        """Raises NotFound (`unknown_release`)."""
        found = self._one(_RELEASES.where(t.release.c.id == release))
        if found is None:
            raise NotFound(f"There is no release {release}.", code="unknown_release")
        return found

    def built(self, releases: Collection[int]) -> dict[int, tuple[int, str]]:
        """The numbers and images of these, by id; for lists, which need no more of a release."""
        query = sa.select(t.release.c.id, t.release.c.number, t.release.c.image).where(t.release.c.id.in_(releases))
        return {row.id: (row.number, row.image) for row in self._db.execute(query)}

    def uses(self) -> list[Use]:
        """Who uses the releases that have an image, in all environments of both tiers."""
        deployment, live = t.deployment, t.deployment.alias("live")
        newest = sa.select(sa.func.max(deployment.c.id)).where(deployment.c.environment_id == t.environment.c.id)
        needed = (
            deployment.c.state.in_([State.QUEUED, State.RUNNING])
            | (deployment.c.id == live.c.id)
            | (deployment.c.id == live.c.replaces)
            | (deployment.c.id == newest.correlate(t.environment).scalar_subquery())
        )
        query = (
            sa.select(
                deployment.c.release_id,
                deployment.c.environment_id,
                sa.func.max(deployment.c.id).filter(deployment.c.state == State.SUCCEEDED),
                sa.func.bool_or(sa.func.coalesce(needed, sa.false())),
            )
            .join_from(deployment, t.environment)
            .join(t.release, t.release.c.id == deployment.c.release_id)
            .outerjoin(live, live.c.id == t.environment.c.live_deployment_id)
            .where(t.release.c.image_removed_at.is_(None))
            .group_by(deployment.c.release_id, deployment.c.environment_id)
        )
        return [Use(*row) for row in self._db.execute(query)]

    def hold(self, releases: Collection[int]) -> None:
        """Wait until nobody is about to use these releases; until the transaction ends, nobody finds them."""
        query = sa.select(t.release.c.id).where(t.release.c.id.in_(releases)).order_by(t.release.c.id)
        self._db.execute(query.with_for_update())

    def note_removed(self, releases: Collection[int]) -> None:
        """Say that their images are no longer kept."""
        those = t.release.update().where(t.release.c.id.in_(releases))
        self._db.execute(those.values(image_removed_at=sa.func.clock_timestamp()))

    def images(self) -> set[str]:
        """The images that are kept, as references by digest."""
        kept = sa.select(t.release.c.image).where(t.release.c.image_removed_at.is_(None))
        return set(self._db.execute(kept).scalars())
