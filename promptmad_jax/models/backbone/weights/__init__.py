"""Backbone weights: formats, key tables, and the shipped miniature."""
