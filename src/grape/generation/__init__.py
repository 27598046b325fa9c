"""Cost specifications from other sources: asked from a vision-language model, or read from functions that one wrote.

Whatever comes in is data. It becomes a specification in the closed vocabulary of :mod:`grape.costs`, or it is refused
with reasons; nothing of it is executed.
"""

from grape.generation.generate_settings import GenerateCostsSettings
from grape.generation.generate_verb import run_generate_costs
from grape.generation.import_verb import ImportCostsSettings, run_import_costs

__all__ = ["GenerateCostsSettings", "ImportCostsSettings", "run_generate_costs", "run_import_costs"]
