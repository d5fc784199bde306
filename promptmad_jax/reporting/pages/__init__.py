"""Prepares the data that the templates of the HTML pages show, and renders them."""
