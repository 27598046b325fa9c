"""One module a verb; each defines ``VERB`` and holds no logic of its own."""
