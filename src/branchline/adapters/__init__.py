"""The outside world behind the ports: git, Docker, Caddy, OpenBao, PostgreSQL."""
