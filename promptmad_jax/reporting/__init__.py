"""Reports of finished evaluations: HTML pages, figures, tables, and comparisons of runs."""
