"""Signing in through OIDC issuers: whom their tokens stand for, and how far they are trusted."""
