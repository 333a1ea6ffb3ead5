"""How gunicorn serves the shop; it finds this file by itself in the working directory."""

# One process for each container: how many containers there are is the platform's business. Threads, because a page
# that follows /events keeps one busy (shop/settings.py says how many of them streams may take).
worker_class = "gthread"
workers = 1
threads = 16

# A mistake in the code or a missing setting ends gunicorn at once, and the reason is the last thing that it says.
preload_app = True

# At SIGTERM no new request is taken and those in flight may finish. Less than the platform's stop_grace_period, so that
# gunicorn ends by itself and is never killed.
graceful_timeout = 25

# The proxy in front keeps idle connections for two minutes. Whoever closes one first should be the proxy: closing from
# this side could cross with a request on its way.
keepalive = 130

# The process proves that it lives by touching a file. On a container's disk that can stall; memory cannot.
worker_tmp_dir = "/dev/shm"

# Nobody talks to a running gunicorn inside a container.
control_socket_disable = True
