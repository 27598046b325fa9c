"""The interface for programs, of which ``import grape`` gives the names.

``verbs``, ``training`` and ``judging`` take settings or their fields and return ``results``; ``given`` writes pairs and
trajectories from memory where the trainers read them.
"""
