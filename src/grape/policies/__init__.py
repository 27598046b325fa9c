"""Policies: the protocol that collection and evaluation speak, and native implementations."""
