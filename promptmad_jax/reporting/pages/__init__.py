"""The HTML pages: what their templates show, prepared as plain data."""
