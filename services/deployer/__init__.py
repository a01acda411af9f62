"""Deployer: puts versions into production and back.

It owns environments, their gates, deployments and the history of each wish, and
tells inference controllers what should be live. What it promises: a version that
is not ready never gets a request, a rollout ends fully new or fully old whatever
crashes, and a wish is refused by the gates or kept with who, when and why.
"""
