"""Modelyard: a self-hosted model registry platform."""
