"""What a deployment platform is about, with no I/O: the words and rules of Branchline."""
