"""SimplerEnv's WidowX tasks in ManiSkill 3, and variations of them."""
