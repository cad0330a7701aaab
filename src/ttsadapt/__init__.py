"""Adapt text-to-speech models, compose the strategies, measure what is forgotten."""

__version__ = "0.1.0"
