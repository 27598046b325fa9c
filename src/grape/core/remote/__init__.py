"""Folders on other machines, such as ``s3://bucket/run``: addresses, mirrors in a cache, and who may write."""
