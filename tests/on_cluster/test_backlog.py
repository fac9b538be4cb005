from tests.test_backlog import *  # noqa: F403
