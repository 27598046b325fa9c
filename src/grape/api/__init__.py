"""The interface for programs, of which ``import grape`` gives the names.

``verbs`` takes settings or their fields and returns ``results``; ``given`` writes pairs and trajectories from memory
where the trainers read them.
"""
