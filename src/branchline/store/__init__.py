"""Our own tables in PostgreSQL and the way in and out of them."""
