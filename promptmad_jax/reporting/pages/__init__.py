"""HTML of the report and the comparison: self-contained pages."""
