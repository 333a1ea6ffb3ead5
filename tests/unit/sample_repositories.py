"""Small repositories of every kind that people bring, as tables of files."""

from __future__ import annotations

import json
from pathlib import Path

DJANGO = {
    "manage.py": "#!/usr/bin/env python\n",
    "shop/__init__.py": "",
    "shop/wsgi.py": "application = None\n",
    "shop/settings.py": """
import os, dj_database_url
SECRET_KEY = os.environ["SECRET_KEY"]
ALLOWED_HOSTS = ["*"]
STATIC_ROOT = "static"
DATABASES = {"default": dj_database_url.config()}
""",
    "shop/urls.py": "urlpatterns = [path('healthz', ok), path('', home)]\n",
    "shop/tests/test_home.py": "def test_home(client): ...\n",
    "requirements.txt": "Django==5.2\ngunicorn>=23\npsycopg[binary]\ndj-database-url\nwhitenoise\n",
    "requirements-dev.txt": "-r requirements.txt\npytest-django\n",
}

DJANGO_DOCKERFILE = """
FROM python:3.12-slim AS base
RUN pip install -r requirements.txt
FROM base AS runtime
COPY . .
EXPOSE 9000
CMD gunicorn shop.wsgi --bind 0.0.0.0:$PORT
FROM runtime AS test
RUN pip install -r requirements-dev.txt
"""

EXPRESS = {
    "package.json": json.dumps(
        {
            "name": "hello",
            "scripts": {"start": "node src/server.js", "test": "vitest run"},
            "dependencies": {"express": "^5", "pg": "^8"},
            "devDependencies": {"vitest": "^3"},
        }
    ),
    "package-lock.json": "{}",
    "src/server.js": """
import express from "express";
const app = express();
app.get("/healthz", (_, answer) => answer.send("ok"));
app.listen(process.env.PORT || 4000);
""",
}

VITE = {
    "package.json": json.dumps(
        {
            "scripts": {"dev": "vite", "build": "vite build", "start": "vite"},
            "devDependencies": {"vite": "^7", "vue": "^3"},
        }
    ),
    "vite.config.ts": 'export default { build: { outDir: "public/out" } }\n',
    "index.html": "<div id=app></div>",
}

PROCFILE = {
    "Procfile": """# what Heroku ran
web: gunicorn app:app --bind 0.0.0.0:$PORT --workers ${WEB_CONCURRENCY:-2}
worker: python worker.py
clock: TICK=5 python clock.py
release: python manage.py migrate && python manage.py loaddata start
""",
    "requirements.txt": "flask\ngunicorn\n",
    "app.py": "from flask import Flask\napp = Flask(__name__)\n@app.route('/up')\ndef up(): return 'ok'\n",
}

COMPOSE = {
    "Dockerfile": "FROM python:3.12\nCOPY . .\nEXPOSE 8000\nCMD python manage.py runserver 0.0.0.0:8000\n",
    "compose.yaml": """
x-app: &app
  build: .
  environment:
    DATABASE_URL: postgres://shop:shop@db/shop
    REDIS_URL: redis://redis:6379/0
    SECRET_KEY: not-so-secret
services:
  web:
    <<: *app
    command: sh -c "python manage.py migrate && gunicorn shop.wsgi --bind 0.0.0.0:8000"
    ports: ["127.0.0.1:${PORT:-8080}:8000"]
    healthcheck:
      test: ["CMD", "curl", "-f", "http://localhost:8000/health/"]
  worker:
    <<: *app
    command: celery -A shop worker
  db:
    image: postgres:17-alpine
  redis:
    image: redis:7
  mail:
    image: axllent/mailpit
  frontend:
    build: ./frontend
    command: npm run dev
""",
    "manage.py": "",
    "shop/wsgi.py": "",
    "shop/settings.py": "DATABASES = {'default': env.db('DATABASE_URL')}\n",
    "requirements.txt": "django\ngunicorn\ncelery\npsycopg2-binary\n",
    "frontend/package.json": "{}",
}

PLAIN = {
    "Dockerfile": """
FROM golang:1.24 AS build
COPY . .
RUN go build -o /server \\
    # with all of it
    ./cmd/server
FROM gcr.io/distroless/static
COPY --from=build /server /server
EXPOSE 8080/tcp 9090
HEALTHCHECK CMD ["/server", "--probe", "http://localhost:8080/livez"]
CMD ["/server", "--listen", "0.0.0.0:8080"]
""",
    "go.mod": "module example\n",
}

ENTRYPOINT_ONLY = {"Dockerfile": 'FROM node:22\nENTRYPOINT ["node", "server.js"]\nEXPOSE 3000\n'}
NGINX = {
    "Dockerfile": "FROM node:22 AS build\nRUN npm run build\nFROM nginx:1.27-alpine\nCOPY --from=build /dist /srv\n"
}
FASTAPI = {
    "pyproject.toml": """[project]
name = "api"
version = "1"
requires-python = ">=3.13"
dependencies = ["fastapi", "uvicorn", "asyncpg", "alembic"]
[dependency-groups]
dev = ["pytest"]
""",
    "uv.lock": "",
    "alembic.ini": "",
    "src/api/main.py": 'app = FastAPI(title="x")\n@app.get("/health")\ndef health(): ...\n',
    "tests/test_api.py": "",
}
MONOREPO = {"README.md": "", "backend/Dockerfile": PLAIN["Dockerfile"], "docs/index.md": ""}
NEXT = {
    "package.json": json.dumps(
        {
            "scripts": {"dev": "next dev", "build": "next build", "start": "next start -p 3100"},
            "dependencies": {"next": "15", "@prisma/client": "6"},
        }
    ),
    "yarn.lock": "",
    "prisma/schema.prisma": 'datasource db { provider = "postgresql" }',
}
ODD = {
    "Dockerfile": 'FROM scratch\nCMD ["/a b", "it\'s", "#x: y", "{z}"]\nEXPOSE 80\n',
    "compose.yml": "services: [unreadable\n",
    "package.json": "no json",
    "Procfile": "web: /a 'b c' \"d: e\" -- #f\nnight-job: echo $(date) | tee /tmp/x\n",
}

SAMPLES: dict[str, dict[str, str]] = {
    "django": DJANGO | {"Dockerfile": DJANGO_DOCKERFILE},
    "django-without-dockerfile": DJANGO,
    "django-bare": {
        "manage.py": "",
        "mysite/settings.py": "ENGINE = 'sqlite3'\nALLOWED_HOSTS = []\n",
        "mysite/wsgi.py": "",
    },
    "express": EXPRESS,
    "vite": VITE,
    "next": NEXT,
    "procfile": PROCFILE,
    "compose": COMPOSE,
    "plain-dockerfile": PLAIN,
    "entrypoint-only": ENTRYPOINT_ONLY,
    "nginx": NGINX,
    "fastapi": FASTAPI,
    "monorepo": MONOREPO,
    "odd": ODD,
    "no-command": {"Dockerfile": "FROM python\n"},
}


def write(folder: Path, files: dict[str, str]) -> Path:
    """Put the files into the folder."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder
