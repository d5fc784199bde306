"""What a finished evaluation shows: pages, figures, tables, and runs side by side."""
