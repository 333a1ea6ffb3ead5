"""The command line: a client of the HTTP API, and the operator of the embedded stack."""
