"""Commands of other projects, translated: their flags keep working, and the equivalent GRAPE command is printed.

``python -m grape.compat.finetune`` takes the training flags of the method's first public implementation,
``python -m grape.compat.main_inference`` and ``run_libero_eval`` the evaluation flags of SimplerEnv and LIBERO.
"""
