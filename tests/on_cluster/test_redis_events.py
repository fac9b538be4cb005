from tests.test_redis_events import *  # noqa: F403
