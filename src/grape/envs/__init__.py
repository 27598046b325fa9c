"""Simulated worlds behind two protocols, :class:`~grape.envs.base.Suite` and :class:`~grape.envs.base.Environment`."""
