"""The WidowX tasks in the original SimplerEnv, which needs another interpreter (``--env-python``)."""
