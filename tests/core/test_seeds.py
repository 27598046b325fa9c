from grape.core.seeds import derive_rng, derive_seed


def test_seeds_depend_on_every_part_and_on_its_type() -> None:
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert (
        len({derive_seed(1, "a"), derive_seed("1", "a"), derive_seed(1, "b"), derive_seed(1), derive_seed("1a")}) == 5
    )
    assert 0 <= derive_seed("x") < 2**63
    assert derive_rng(3).random() == derive_rng(3).random()
