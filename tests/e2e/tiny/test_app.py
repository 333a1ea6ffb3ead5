"""The small project's own tests."""

import os

import app

assert app.VERSION, "a version is needed"
assert app.FAULT != "tests", "the tests find a fault"
print("databases:", sorted(name for name in os.environ if name.endswith("_URL")))
print("2 passed")
