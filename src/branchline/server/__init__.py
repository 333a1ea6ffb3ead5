"""The HTTP face: API, live logs, metrics, dashboard."""
