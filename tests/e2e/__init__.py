"""Stories over real processes. What these modules assert shows its values when it does not hold."""

import pytest

pytest.register_assert_rewrite("tests.e2e.duo", "tests.e2e.platform", "tests.e2e.holding")
