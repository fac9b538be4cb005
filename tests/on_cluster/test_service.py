from tests.test_service import *  # noqa: F403
