"""Hand-written fakes of the ports, a module each; the contract suite holds them to the real adapters' promises."""
