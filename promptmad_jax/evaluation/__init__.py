"""Exact metrics, the evaluation protocol, tables, overlays and the HTML report."""
