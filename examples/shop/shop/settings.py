"""Settings of the shop. Whatever differs between environments comes in as an environment variable."""

import os
from pathlib import Path

import dj_database_url
from django.core.exceptions import ImproperlyConfigured

BASE_DIR = Path(__file__).resolve().parent.parent
DEBUG = os.environ.get("DEBUG") == "1"


def required(name: str, under_debug: str) -> str:
    """The value of an environment variable; only under DEBUG may it be missing."""
    value = os.environ.get(name) or (under_debug if DEBUG else "")
    if not value:
        raise ImproperlyConfigured(f"{name} is not set. Set it in this environment's config, or DEBUG=1 on a laptop.")
    return value


SECRET_KEY = required("SECRET_KEY", under_debug="only-for-laptops")

# Any name is fine by default: nobody but the platform's proxy reaches the containers, it passes on only the names that
# belong to this environment, and health probes come by address.
ALLOWED_HOSTS = os.environ.get("ALLOWED_HOSTS", "*").split(",")

# Who am I? The platform tells every container.
ENVIRONMENT = os.environ.get("BRANCHLINE_ENVIRONMENT", "local")
DEPLOYMENT = os.environ.get("BRANCHLINE_DEPLOYMENT", "")
COMMIT = os.environ.get("BRANCHLINE_COMMIT", "")

INSTALLED_APPS = ["catalogue"]

# No sessions and no cookies, hence nothing that a foreign page could ride on: CSRF tokens would protect nothing here.
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "shop.urls"
WSGI_APPLICATION = "shop.wsgi.application"

# A small pool for each process. A database allows only so many connections, and while a deployment switches over, the
# old and the new containers share them.
DATABASES = {
    "default": dj_database_url.parse(
        required("DATABASE_URL", under_debug="postgres://shop:shop@localhost:5432/shop"),
        conn_health_checks=True,
    )
}
DATABASES["default"].setdefault("OPTIONS", {})["pool"] = {"min_size": 1, "max_size": 4, "timeout": 5}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# The page: what Vite built, served as it is. Files under /assets carry a hash of their content in their name and may be
# cached for ever; everything else is asked for again each time, so that a new release shows at once.
WHITENOISE_ROOT = BASE_DIR / "frontend" / "dist"
WHITENOISE_INDEX_FILE = True
WHITENOISE_IMMUTABLE_FILE_TEST = r"^/assets/"
WHITENOISE_MAX_AGE = 0

# A page that follows /events keeps a thread busy: half of gunicorn's threads are for such streams. They are short on
# purpose: the browser comes back by itself, and a container that is being replaced is soon free of them.
MAX_STREAMS = 8
STREAM_SECONDS = 5

USE_TZ = True
TIME_ZONE = "UTC"

# The platform collects what containers write. Without this, Django would keep errors to itself unless under DEBUG.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(levelname)s %(name)s: %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
