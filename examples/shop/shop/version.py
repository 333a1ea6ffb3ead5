"""What this release calls itself. Change the greeting, push, and see it arrive on the page."""

VERSION = "1.0.0"
GREETING = "Hello"
