"""The whole API, asked by schemathesis for whatever its description allows and forbids: nothing is the server's fault.

The same questions at each run, in less than a minute. BRANCHLINE_FUZZ_EXAMPLES=500 asks that many of each
operation, other ones each time; what it finds is printed as a curl command.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from branchline.domain.access import Role
from branchline.layout import Layout
from branchline.settings import Settings
from branchline.stack.openbao import OpenBao
from branchline.store.database import SqlStore
from tests.integration.real_server import Place, real_server

pytestmark = pytest.mark.stack

EXAMPLES = os.environ.get("BRANCHLINE_FUZZ_EXAMPLES", "")
SCHEMATHESIS = Path(sys.executable).with_name("schemathesis")

ROOT, HOOKS = Path(__file__).parents[2], "tests.integration.fuzz_hooks"
CONFIG = """
warnings = false
continue-on-failure = true
max-stream-events = 3
request-timeout = 20
[generation]
deterministic = {deterministic}
database = "none"
max-examples = {examples}
no-shrink = {deterministic}
[phases.fuzzing.extra-data-sources]
responses = false # it finds the names of our own tokens there, and revokes them
[phases.coverage]
enabled = {coverage}
[phases.stateful]
enabled = false
[checks]
# whether a name exists, or a ref, is not a matter of the description
positive_data_acceptance.enabled = false
negative_data_rejection.expected-statuses = ["400", "401", "403", "404", "405", "409", "413", "414", "422", "429"]
# the one that is required is given to all requests; `ignored_auth` asks without it, and with a wrong one
missing_required_header.enabled = false
use_after_free.enabled = false
ensure_resource_availability.enabled = false
[dictionaries]
projects = {{ values = ["{project}", "nothing", "..", "a b", "%2e%2e", "_common"] }}
environments = {{ values = ["develop", "production", "_common", "nothing", "..", "-x"] }}
keys = {{ values = ["COLOUR", "PATH", "a.b", "..", "x'y"] }}
numbers = {{ values = [{deployment}, 9223372036854775807] }}
refs = {{ values = ["develop", "--upload-pack=x", "a..b", "refs/heads/", "HEAD"] }}
[parameters]
"path.project" = {{ dictionary = "projects", probability = 0.7 }}
"query.project" = {{ dictionary = "projects", probability = 0.5 }}
"path.environment" = {{ dictionary = "environments", probability = 0.7 }}
"path.other" = {{ dictionary = "environments", probability = 0.7 }}
"query.environment" = {{ dictionary = "environments", probability = 0.5 }}
"path.key" = {{ dictionary = "keys", probability = 0.5 }}
"path.id" = {{ dictionary = "numbers", probability = 0.7 }}
"body.ref" = {{ dictionary = "refs", probability = 0.7 }}
[[operations]]
include-path = "/api/v1/logout" # ends the very token that all of this is asked with
enabled = false
"""


@pytest.fixture(scope="module")
def place(settings: Settings, home_layout: Layout, sql_store: SqlStore, openbao: OpenBao) -> Iterator[Place]:
    with real_server(settings, sql_store, "fuzzed") as made:
        yield made


@pytest.mark.timeout(3600 if EXAMPLES else 300)
@pytest.mark.parametrize("role", [Role.ADMIN, Role.DEVELOPER, None])
def test_nothing_that_anybody_asks_is_the_servers_fault(place: Place, tmp_path: Path, role: Role | None) -> None:
    words = {
        "deterministic": json.dumps(not EXAMPLES),
        "examples": EXAMPLES or "15",
        "coverage": json.dumps(role is Role.ADMIN or bool(EXAMPLES)),  # others get to see less of it
        "project": place.project,
        "deployment": place.deployment,
    }
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(**words))
    headers = [f"--header=Authorization: Bearer {place.tokens[role]}"] if role else []
    before = len(place.child.log.read_text().splitlines())
    done = subprocess.run(
        [SCHEMATHESIS, "run", "--no-color", *headers, f"{place.url}/api/openapi.json"],
        cwd=tmp_path,
        env={
            **os.environ,
            "NO_PROXY": "*",
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": HOOKS,
            "ENDED_DEPLOYMENT": str(place.deployment),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr
    lines = [json.loads(line) for line in place.child.log.read_text().splitlines()[before:]]
    statuses = Counter(line["status"] for line in lines if line["event"] == "request")
    assert statuses[429] < 0.2 * statuses.total(), statuses  # who is kept out by a limit says nothing
    assert statuses[200] + statuses[201] > 20 if role else statuses[401] > 40, statuses
