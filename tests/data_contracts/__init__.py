import pytest

# What the tests of the library assert together says what it found.
pytest.register_assert_rewrite("tests.data_contracts.libraries")
