"""Branchline: a self-hosted internal deployment platform."""

__version__ = "0.1.0"
