"""For every pytest run here, of tests/ and of notebooks (`--nbval`) alike."""

pytest_plugins = ["tests.support.timeouts", "tests.support.distribution", "tests.support.whole_notebooks"]
