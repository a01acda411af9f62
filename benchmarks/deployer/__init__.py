"""The bars of the deployer: predictions, swaps, rollbacks, what it costs to have nothing to do."""
