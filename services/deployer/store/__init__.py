"""The deployer's database: the only package of it that knows SQL."""
