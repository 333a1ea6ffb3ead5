"""The dashboard: pages rendered on the server, kept fresh by htmx, readable without any script."""

from __future__ import annotations

from branchline.server.dashboard.login import LoginNeeded, send_to_login
from branchline.server.dashboard.pages import pages
from branchline.server.dashboard.shown import problem_page

__all__ = ["LoginNeeded", "pages", "problem_page", "send_to_login"]
