"""What the suite's other services have to tell in a project's ledger."""
