"""Stands in for Robometer's own package: what its script for local inference calls, over the brightness of images."""
