"""For every pytest run here, of tests/ and of notebooks (`--nbval`) alike."""

pytest_plugins = [
    "tests.support.timeouts",
    "tests.support.distribution",
    "tests.support.long_tests",
    "tests.support.whole_notebooks",
    "tests.support.nbval_figures",
]
