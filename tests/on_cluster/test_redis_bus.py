from tests.test_redis_bus import *  # noqa: F403
