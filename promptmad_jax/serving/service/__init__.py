"""The detector as an HTTP service with a page to drop images on."""
