"""The embedded servers of a one-machine platform: prepared, started, watched, inspected and stopped."""
