"""Caddy's start-up document: how it finds an environment's targets in the routes folder, request by request.

The document never changes while Caddy runs, since loading another one drops requests. What changes are directory
entries (see `caddy_routes`), which Caddy looks up anew for every request and caches nowhere:

1.  The one name in `hosts/HOSTNAME/live/hosts/HOSTNAME/` says all that a request needs to know of what is live now, so
    that a switch, which renames `live`, comes for every request either before or after. It is `@` and the targets
    where every path leads to them, else it is the generation, in which nothing changes any more.
2.  There, the name after `@` in the deepest folder of `hosts/HOSTNAME/GENERATION/tree/` that the request's path leads
    through holds the targets.

Both cost the same however many environments there are, and there is no limit to their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from branchline.layout import Layout
from branchline.settings import Settings

MAX_TARGETS = 8
"""Targets of one prefix."""

MAX_DEPTH = 8
"""Segments of a prefix. Each is one more folder that Caddy looks for when a request's path is as deep."""

LOG_MEGABYTES = 64
LOG_FILES = 6
"""The access log is rolled at this size, and so many rolled files are kept."""

PATIENCE = ("500ms", "500ms", "1s", "1s", "2s")
"""How long a request tries the targets it found before it looks again for what is live."""

ACCESS_LOGGER = "http.log.access.traffic"
UNKNOWN_HOST = "No environment answers to this hostname.\n"
UNKNOWN_PATH = "This environment serves nothing under this path.\n"
NO_ANSWER = "This environment does not answer. Please try again in a moment.\n"

_HOST = "{http.request.host}"
_FOUND = "{http.matchers.file.relative}"
_REASON = {"handler": "log_append", "key": "reason", "value": "{http.error.message}"}
_GIVE_UP = {"handler": "error", "status_code": "{http.error.status_code}", "error": "{http.error.message}"}


def document(layout: Layout, settings: Settings) -> dict[str, Any]:
    """The whole document, for `caddy run --config FILE`: traffic, the admin API on its Unix socket, the logs."""
    return {
        "admin": {"listen": f"unix/{layout.caddy_admin}|0600", "config": {"persist": False}},
        "storage": {"module": "file_system", "root": str(layout.home / "caddy" / "storage")},
        "logging": {"logs": _logs(layout)},
        "apps": {
            "http": {
                "grace_period": "10s",
                "servers": {
                    "traffic": {
                        "listen": [settings.proxy_listen or f":{layout.ports.proxy}"],
                        "protocols": ["h1"],
                        "automatic_https": {"disable": True},
                        "logs": {"default_logger_name": ACCESS_LOGGER.rpartition(".")[2]},
                        "routes": _routes(str(layout.routes)),
                        "errors": {"routes": [{"handle": [_REASON, _page("{http.error.status_code}", NO_ANSWER)]}]},
                    }
                },
            }
        },
    }


def _routes(folder: str) -> list[dict[str, Any]]:
    """Every request runs through these from top to bottom."""
    return [
        {"handle": [{"handler": "headers", "response": {"delete": ["Server"]}}]},
        {"match": [{"header_regexp": {"Host": {"pattern": r"[A-Z]|\.(:|$)"}}}], "handle": [_plain_hostname()]},
        {"handle": [_send(folder, PATIENCE)]},
    ]


def _send(folder: str, patience: Sequence[str]) -> dict[str, Any]:
    """Send a request where it belongs, and ask again where that is while no connection comes about.

    A switch may replace targets while a request is on its way to them. As long as there was no connection, nothing was
    sent, so that the request can go to the new ones.
    """
    handler: dict[str, Any] = {"handler": "subroute", "routes": _lookup(folder, patience[0])}
    if patience[1:]:
        unconnected = {"vars_regexp": {"{http.error.message}": {"pattern": "^dial "}}}
        again = {"match": [unconnected], "handle": [_send(folder, patience[1:])], "terminal": True}
        handler["errors"] = {"routes": [again, {"handle": [_GIVE_UP]}]}
    return handler


def _plain_hostname() -> dict[str, Any]:
    """Lower case and without the dot at the end: the hostname as it is named in the routes folder."""
    letters = [{"search": chr(ord("A") + n), "replace": chr(ord("a") + n)} for n in range(26)]
    dot = {"search_regexp": r"\.(:|$)", "replace": "$1"}
    return {"handler": "headers", "request": {"replace": {"Host": [*letters, dot]}}}


def _lookup(folder: str, patience: str) -> list[dict[str, Any]]:
    """Find what is live, then the targets."""
    hosts = f"{folder}/hosts/{_HOST}"
    segments = [f"{{http.request.uri.path.{number}}}/" for number in range(MAX_DEPTH)]
    live = {
        "header_regexp": {"Host": {"pattern": "^[a-z0-9._-]+(:[0-9]+)?$"}},
        # With this policy Caddy takes the listing's word for it. The others look for the file once more, and would
        # miss it after a switch in between.
        "file": {"root": f"{hosts}/live/hosts/{_HOST}", "try_files": ["*"], "try_policy": "first_exist_fallback"},
    }
    leads_everywhere = {"vars_regexp": {"live": {"pattern": "^/@"}}}
    deepest = {
        "file": {
            "root": f"{hosts}{{http.vars.live}}/tree",
            "try_files": ["/" + "".join(segments[:depth]) + "@*" for depth in range(MAX_DEPTH, -1, -1)],
            "try_policy": "first_exist",
        }
    }
    send = [_target_names(), _reverse_proxy(patience)]
    choose = [
        {"match": [leads_everywhere], "handle": send, "terminal": True},
        {"match": [deepest], "handle": send, "terminal": True},
        {"handle": [_page("404", UNKNOWN_PATH)]},
    ]
    return [
        {
            "match": [live],
            "handle": [{"handler": "vars", "live": _FOUND}, {"handler": "subroute", "routes": choose}],
            "terminal": True,
        },
        {"handle": [_page("404", UNKNOWN_HOST)]},
    ]


def _target_names() -> dict[str, Any]:
    """Read `@first,second` into eight placeholders; fewer targets take turns in them."""
    turns = range(MAX_TARGETS)
    return {
        "handler": "map",
        "source": _FOUND,
        "destinations": [f"{{target{turn}}}" for turn in turns],
        "mappings": [
            {
                "input_regexp": "/@" + ",".join(["([^,]+)"] * count) + "$",
                "outputs": [f"${{{turn % count + 1}}}" for turn in turns],
            }
            for count in range(1, MAX_TARGETS + 1)
        ],
    }


def _reverse_proxy(patience: str) -> dict[str, Any]:
    """Pass the request on; for so long, try other targets while no connection comes about.

    All environments share this handler, hence no passive health checks: Caddy would count failures by placeholder.
    """
    return {
        "handler": "reverse_proxy",
        "upstreams": [{"dial": f"{{target{turn}}}"} for turn in range(MAX_TARGETS)],
        "load_balancing": {
            "selection_policy": {"policy": "round_robin"},
            "try_duration": patience,
            "try_interval": "20ms",
            # Nothing matches: a request that reached a target is never sent a second time.
            "retry_match": [{"not": [{"path": ["*"]}]}],
        },
        "transport": {
            "protocol": "http",
            "dial_timeout": "1s",
            "compression": False,
            # Shorter than application servers keep idle connections (gunicorn: 2 s), so that a request does not go
            # out on a connection that is just being closed at the other end.
            "keep_alive": {"idle_timeout": "1s", "max_idle_conns_per_host": 256},
        },
    }


def _page(status: str, text: str) -> dict[str, Any]:
    return {
        "handler": "static_response",
        "status_code": status,
        "headers": {"Content-Type": ["text/plain; charset=utf-8"], "Cache-Control": ["no-store"]},
        "body": text,
    }


def _logs(layout: Layout) -> dict[str, Any]:
    """Requests go to the access log, all else to standard error; headers and query strings hold secrets: to neither."""
    encoder = {
        "format": "filter",
        "wrap": {"format": "json"},
        "fields": {
            "request>headers": {"filter": "delete"},
            "request>tls": {"filter": "delete"},
            "resp_headers": {"filter": "delete"},
            "user_id": {"filter": "delete"},
            "request>uri": {"filter": "regexp", "regexp": r"\?.*", "value": ""},
        },
    }
    file = {
        "output": "file",
        "filename": str(layout.access_log),
        "roll": True,
        "roll_size_mb": LOG_MEGABYTES,
        "roll_keep": LOG_FILES,
        "roll_gzip": False,
    }
    return {
        "access": {"include": [ACCESS_LOGGER], "writer": file, "encoder": encoder},
        "default": {"exclude": [ACCESS_LOGGER], "encoder": encoder},
    }
