"""Simulators: suites of tasks (:class:`~grape.envs.base.SuiteBase`) and their environments."""
