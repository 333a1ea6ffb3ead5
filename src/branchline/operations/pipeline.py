"""From a commit to a tested image: checkout, build, test, publish."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from threading import BoundedSemaphore

from branchline.domain.deployment import Deployment
from branchline.domain.environment import Environment
from branchline.domain.errors import DeploymentFailed, PlatformBroke, TakenOver
from branchline.domain.manifest import FILE_NAME, Limits, Test
from branchline.domain.pipeline import Stage, StageResult
from branchline.domain.release import build_key
from branchline.manifest_file import parse
from branchline.operations.scene import Scene
from branchline.operations.variables import of_platform
from branchline.ports import Containers, Databases, Images, Source
from branchline.records import Store


class Pipeline:
    """The stages that make a release. Worktrees lie where `worktree` says, one for each deployment."""

    def __init__(
        self,
        store: Store,
        source: Source,
        images: Images,
        containers: Containers,
        databases: Databases,
        *,
        worktree: Callable[[int], Path],
        builds_at_once: int,
    ) -> None:
        self._store = store
        self._source = source
        self._images = images
        self._containers = containers
        self._databases = databases
        self._worktree = worktree
        self._building = BoundedSemaphore(builds_at_once)

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
        key = build_key(about.commit, manifest)
        with self._store.transaction() as records:
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
        place = self._test_place(scene.deployment, scene.environment)
        self._leave(scene, place)  # an attempt that was interrupted proves nothing: tests always run from the start
        try:
            status = self._run_tests(scene, test, place)
        except TakenOver:
            raise  # the runner that carries on has begun them anew
        except Exception:
            self._leave(scene, place)
            raise
        said = scene.log.last
        self._leave(scene, place)
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
        image, tag = str(scene.outputs[Stage.BUILD]["image"]), f"{about.commit[:12]}-{key[:8]}"
        try:
            reference = self._images.publish(image, about.project, tag, scene.log, scene.stop)
        except PlatformBroke as error:
            if error.code != "image_gone":
                raise
            # Another machine built it, or somebody pruned it: the cache makes building it again a matter of moments.
            image = self._build(scene, scene.manifest.build.target, "build")
            reference = self._images.publish(image, about.project, tag, scene.log, scene.stop)
        with self._store.transaction() as records:
            release = records.releases.add(scene.project, about.commit, key, reference, scene.manifest)
            records.deployments.note_release(about.id, release.id)
        return StageResult({"reference": reference}, note=f"release {release.number}")

    def tidy(self, deployment: Deployment) -> None:
        """Remove what only the pipeline needed."""
        folder = self._worktree(deployment.id)
        for leftover in (folder, folder.with_name(f"{folder.name}.partial")):
            shutil.rmtree(leftover, ignore_errors=True)
        for step in ("build", "test"):
            try:
                self._images.remove(_tag(deployment, step))
            except PlatformBroke:
                return  # Docker is away; a tag that stays behind does no harm

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
        while not self._building.acquire(timeout=0.2):
            scene.stop.check()
        try:
            return self._images.build(
                context,
                dockerfile=build.dockerfile,
                target=target,
                args=build.args,
                tag=_tag(scene.deployment, step),
                labels={"branchline.project": scene.project.name},
                log=scene.log,
                stop=scene.stop,
            )
        finally:
            self._building.release()

    @staticmethod
    def _test_place(deployment: Deployment, environment: Environment) -> Environment:
        """An environment of its own for the tests: slot 0 asks for any network that is free."""
        return Environment(0, environment.project, f"test-{deployment.id}", environment.tier, slot=0)

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

    def _leave(self, scene: Scene, place: Environment) -> None:
        self._containers.destroy(place)
        for name in scene.manifest.test.databases if scene.manifest.test else []:
            self._databases.drop_scratch(place, name, "test")


def _tag(deployment: Deployment, step: str) -> str:
    return f"branchline-{step}/{deployment.project}:d{deployment.id}"
