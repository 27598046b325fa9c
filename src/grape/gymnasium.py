"""``import grape.gymnasium`` registers every task with Gymnasium: ``gymnasium.make("grape/toy-reach-red-v0")``.

``gymnasium.make("grape.gymnasium:grape/toy-reach-red-v0")`` does both.
"""

from grape.envs.gymnasium_tasks import environment_id, make_task_environment, register_environments

__all__ = ["environment_id", "make_task_environment", "register_environments"]

register_environments()
