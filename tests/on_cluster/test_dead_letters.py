from tests.test_dead_letters import *  # noqa: F403
