"""Meta-World's Sawyer arm as a suite of nine tasks (Yu et al. 2019, arXiv 1910.10897; package ``metaworld``)."""
