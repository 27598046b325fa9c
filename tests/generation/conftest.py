from tests.costs.conftest import make_trajectory

__all__ = ["make_trajectory"]
