"""From a commit to a tested image: checkout, build, test, publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from branchline.domain.config import Secret
from branchline.domain.deployment import Deployment, Fence
from branchline.domain.environment import Environment, Tier
from branchline.domain.errors import DeploymentFailed, PlatformBroke, TakenOver
from branchline.domain.manifest import FILE_NAME, Limits, Manifest, Test
from branchline.domain.pipeline import Stage, StageResult, StageState
from branchline.domain.release import Release, build_key
from branchline.manifest_file import parse
from branchline.operations.scene import Scene
from branchline.operations.variables import of_platform
from branchline.ports import Containers, Databases, Images, Source
from branchline.records import Store

PUBLISHING = "publishing"
"""Those who publish share this name; who cleans the registry is alone in it."""

_SLOT_PAUSE = 0.2
_PUBLISH_PAUSE = 0.03
_LEFT_CLEAN = frozenset({StageState.PASSED, StageState.FAILED, StageState.SKIPPED})


class Pipeline:
    """The stages that make a release. In the folder `work` each deployment has a worktree of its own."""

    def __init__(
        self,
        store: Store,
        source: Source,
        images: Images,
        containers: Containers,
        databases: Databases,
        *,
        work: Path,
        tier: Tier,
        builds_at_once: int,
        instance: str,
        build_secrets: Callable[[Scene], Mapping[str, Secret]],
    ) -> None:
        self._store = store
        self._source = source
        self._images = images
        self._containers = containers
        self._databases = databases
        self._work = work
        self._build_secrets = build_secrets
        self.image_labels = {"branchline.instance": instance}
        """What all images of this platform carry, whatever they are called."""
        self._testing: set[Fence] = set()  # whose tests have begun: they may be cut off, and begin again
        self._build_slots = [f"build-{tier}-{number}" for number in range(builds_at_once)]

    def checkout(self, scene: Scene) -> StageResult:
        """Put the exact commit into a clean folder and read its manifest."""
        about = scene.deployment
        folder = self._checked_out(scene)
        file = folder / FILE_NAME
        if not file.is_file():
            raise DeploymentFailed(
                f"The commit has no {FILE_NAME}.", code="no_manifest", hint="`branchline init` writes one."
            )
        manifest = parse(file.read_text(errors="replace"))
        key = build_key(about.commit, manifest, about.environment)
        with scene.record() as records:
            known = records.releases.find(scene.project, key)
            if known is not None:
                records.deployments.note_release(about.id, known.id)
        built_before = f"release {known.number}" if known else ""
        return StageResult(
            {"manifest": manifest.model_dump(mode="json"), "build_key": key, "built_before": built_before},
            note=f"{about.commit[:12]} {about.subject}"[:200],
        )

    def build(self, scene: Scene) -> StageResult:
        """Build the image that runs in environments."""
        if scene.built_before:
            return StageResult(note=f"{scene.built_before} was built from this commit", skipped=True)
        image = self._build(scene, scene.manifest.build.target, "build")
        return StageResult({"image": image}, note=image[:19])

    def test(self, scene: Scene) -> StageResult:
        """Run the project's tests inside the image, with databases and a network that nobody else uses."""
        if scene.built_before:
            return StageResult(note=f"{scene.built_before} was tested before", skipped=True)
        test = scene.manifest.test
        if test is None:
            return StageResult(note="the manifest names no tests", skipped=True)
        # An attempt that was interrupted proves nothing: tests always run from the start, each time in a place of their
        # own, so that nobody who comes back late can disturb them.
        place, *earlier = self._test_places(scene.deployment, scene.environment)
        for left in [place, *earlier] if scene.deployment.fence in self._testing else earlier:
            self._leave(scene.manifest, left)
        self._testing.add(scene.deployment.fence)
        try:
            status = self._run_tests(scene, test, place)
        except TakenOver:
            # The runner that carries on has begun them anew in a place of its own, and left this one clean; what was
            # made here since is nobody's but ours.
            with suppress(PlatformBroke):
                self._leave(scene.manifest, place)
            raise
        except Exception:
            self._leave(scene.manifest, place)
            raise
        said = scene.log.last
        self._leave(scene.manifest, place)
        if status != 0:
            raise DeploymentFailed(
                f"The tests failed with exit status {status}: {said}"[:500],
                code="tests_failed",
                hint="Their output is in the log of the stage test. Nothing was published or changed.",
            )
        return StageResult(note=said[:200])

    def publish(self, scene: Scene) -> StageResult:
        """Push the image and record the release by its digest."""
        if scene.built_before:
            return StageResult(note=f"{scene.built_before} is in the registry", skipped=True)
        about, key = scene.deployment, str(scene.outputs[Stage.CHECKOUT]["build_key"])
        # A tag of its own, or another build of this commit would take it away from an image that is still needed.
        image, tag = str(scene.outputs[Stage.BUILD]["image"]), f"{about.commit[:12]}-d{about.id}"
        try:
            release = self._publish(scene, image, tag, key)
        except PlatformBroke as error:
            if error.code != "image_gone":
                raise
            # Another machine built it, or somebody pruned it: the cache makes building it again a matter of moments.
            image = self._build(scene, scene.manifest.build.target, "build")
            release = self._publish(scene, image, tag, key)
        return StageResult({"reference": release.image}, note=f"release {release.number}")

    def tidy(self, deployment: Deployment) -> None:
        """Remove what only the pipeline needed, the worktree last: where there is one, something may be left."""
        self._testing.discard(deployment.fence)
        with self._store.transaction() as records:
            stages = {one.name: one for one in records.deployments.stages(deployment.id)}
            place = records.environments.get(deployment.project, deployment.environment)
        if (test := stages.get(Stage.TEST)) and test.state not in _LEFT_CLEAN:
            checkout = stages[Stage.CHECKOUT].result
            manifest = Manifest.model_validate(checkout["output"]["manifest"]) if checkout else None
            for left in self._test_places(deployment, place):
                self._leave(manifest, left)
        for step in ("build", "test"):
            self._images.remove(_tag(deployment, step))
        folder = self._worktree(deployment.id)
        for leftover in (folder.with_name(f"{folder.name}.partial"), folder):
            shutil.rmtree(leftover, ignore_errors=True)

    def untidied(self) -> list[int]:
        """The deployments that have a worktree here, whether they still run or not."""
        names = {path.name.partition(".")[0] for path in self._work.iterdir()} if self._work.is_dir() else set()
        return sorted(int(name) for name in names if name.isdigit())

    def _worktree(self, deployment: int) -> Path:
        return self._work / str(deployment)

    def _publish(self, scene: Scene, image: str, tag: str, key: str) -> Release:
        """Nobody cleans the registry until the image is there and the release is written down."""
        about = scene.deployment
        while True:
            with self._store.alone(PUBLISHING, shared=True) as ours:
                if ours:
                    reference = self._images.publish(image, about.project, tag, scene.log, scene.stop)
                    with scene.record() as records:
                        release = records.releases.add(scene.project, about.commit, key, reference, scene.manifest)
                        records.deployments.note_release(about.id, release.id)
                    return release
            scene.stop.wait(_PUBLISH_PAUSE)

    def _checked_out(self, scene: Scene) -> Path:
        """The deployment's folder, made where it is missing: after a crash, another machine may carry on."""
        folder = self._worktree(scene.deployment.id)
        if not folder.is_dir():
            partial = folder.with_name(f"{folder.name}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            about = scene.deployment
            self._source.checkout(about.project, scene.project.repository, about.commit, partial, scene.log, scene.stop)
            partial.rename(folder)
        return folder

    def _build(self, scene: Scene, target: str | None, step: str) -> str:
        build = scene.manifest.build
        folder = self._checked_out(scene)
        context = folder / build.context
        if not context.resolve().is_relative_to(folder.resolve()):  # a link in the repository may lead anywhere
            raise DeploymentFailed(
                f"The build context {build.context} leads out of the repository.",
                code="context_outside",
                hint="`build.context` must be a folder of the repository; links to elsewhere are not followed.",
            )
        # BuildKit takes a step from its cache whatever its secrets are: by this a Dockerfile can tell them apart.
        told = {"BRANCHLINE_ENVIRONMENT": scene.environment.name} if build.secrets else {}
        with self._build_slot(scene):
            return self._images.build(
                context,
                dockerfile=build.dockerfile,
                target=target,
                args={**build.args, **told},
                tag=_tag(scene.deployment, step),
                labels={**self.image_labels, "branchline.project": scene.project.name},
                log=scene.log,
                stop=scene.stop,
                secrets=self._build_secrets(scene),
            )

    @contextmanager
    def _build_slot(self, scene: Scene) -> Iterator[None]:
        """Wait for one of the places for builds, which all runners of the tier share."""
        told = False
        while True:
            for slot in self._build_slots:
                with self._store.alone(slot) as mine:
                    if mine:
                        yield
                        return
            if not told:
                scene.log.write(f"Waiting: {len(self._build_slots)} builds run already.")
                told = True
            scene.stop.wait(_SLOT_PAUSE)

    @staticmethod
    def _test_places(deployment: Deployment, environment: Environment) -> list[Environment]:
        """Environments for the tests of each attempt, newest first: slot 0 asks for any network that is free."""
        return [
            Environment(0, environment.project, f"test-{deployment.id}-{attempt}", environment.tier, slot=0)
            for attempt in range(deployment.attempt, 0, -1)
        ]

    def _run_tests(self, scene: Scene, test: Test, place: Environment) -> int:
        image = self._build(scene, test.target or scene.manifest.build.target, "test")
        self._containers.ensure_network(place)
        variables = of_platform(scene)
        for name in test.databases:
            url = self._databases.ensure_scratch(place, name, "test")
            scene.log.hide([url])
            variables[scene.manifest.databases[name].variable] = url
        number, limits = scene.deployment.id, Limits()
        return self._containers.run(
            place, "test", number, image, test.command, variables, limits, scene.log, scene.stop
        )

    def _leave(self, manifest: Manifest | None, place: Environment) -> None:
        self._containers.destroy(place)
        for name in manifest.test.databases if manifest and manifest.test else []:
            self._databases.drop_scratch(place, name, "test")


def _tag(deployment: Deployment, step: str) -> str:
    return f"branchline-{step}/{deployment.project}:d{deployment.id}"
