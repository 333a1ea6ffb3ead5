"""What helps a project on board: looks at a repository, writes a first manifest."""
