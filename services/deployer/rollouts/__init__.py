"""Rollouts: from a wish to what is live, step by step."""
