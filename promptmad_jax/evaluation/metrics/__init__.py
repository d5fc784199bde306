"""Exact metrics: AUROC, AP, F1-max, AUPRO, and multi-type figures."""
