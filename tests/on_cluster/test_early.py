from tests.test_early import *  # noqa: F403
