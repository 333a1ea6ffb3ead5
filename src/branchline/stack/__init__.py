"""The embedded servers and the supervisor that starts and watches them."""
