"""Secrets of builds: kept encrypted, given only to the worker that holds a build naming them."""
