"""What the shop says about itself: is it healthy, and which release is it?"""

import logging

from django.conf import settings
from django.db import connection
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from shop.version import GREETING, VERSION

logger = logging.getLogger(__name__)


def database_answers() -> None:
    """Raise unless the database answers."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")


DEPENDENCIES = {"database": database_answers}
"""What the shop cannot live without. Each raises where it fails."""


@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """200 while all dependencies answer, else 503: the platform sends nobody to a container that says so."""
    found = {}
    for name, check in DEPENDENCIES.items():
        try:
            check()
            found[name] = "ok"
        except Exception as error:
            logger.error("healthz: the %s does not answer: %s", name, error)
            found[name] = "failed"
    healthy = set(found.values()) == {"ok"}
    return JsonResponse({"healthy": healthy, **found}, status=200 if healthy else 503)


@require_safe
def version(request: HttpRequest) -> JsonResponse:
    """What runs here. The page shows it as its badge."""
    return JsonResponse(
        {
            "version": VERSION,
            "greeting": GREETING,
            "environment": settings.ENVIRONMENT,
            "deployment": settings.DEPLOYMENT,
            "commit": settings.COMMIT,
        }
    )
