from tests.test_wall_clock import *  # noqa: F403
